"""Probes: the requests sent to an endpoint, and the checks of their answers."""

from __future__ import annotations

import dataclasses
import secrets
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from oneturn.conformance.endings import check_leaks
from oneturn.conformance.endpoint import Answer, Endpoint, Stream
from oneturn.conformance.events import (
    TERMINAL,
    done_items,
    kind,
    mapping,
    message_text,
    streamed_text,
)
from oneturn.conformance.report import Probe
from oneturn.conformance.response import check_response, compare
from oneturn.conformance.rules import Contract, Findings, format_value
from oneturn.conformance.stream import check_stream
from oneturn.core.findings import Finding, Severity

QUESTION = "In one sentence: what can you do for me? (Reference: {marker})"
_UNKNOWN_INPUT = "no_such_input_of_oneturn_check"
_DISCONNECTS = 3


@dataclass(frozen=True)
class Settings:
    """Settings of the probes.

    Attributes:
        question: the question; ``{marker}`` in it is replaced by a word unique to each request.
        echo: whether the agent repeats the marker.
        deterministic: whether the same question always has the same answer.
        answered: whether the agent runs all its tools itself; see :func:`oneturn.conformance.check_stream`.
        contract: the contract that answers are checked against.
    """

    question: str = QUESTION
    echo: bool = False
    deterministic: bool = False
    answered: bool = False
    contract: Contract = "mlflow"

    def format_question(self, marker: str) -> str:
        """Return the question with its marker."""
        return self.question.replace("{marker}", marker)


def stream_violations(answer: Answer, settings: Settings, client_tools: Collection[str] = ()) -> list[Finding]:
    """Check an answer that should be a stream; ``client_tools`` are the names of the tools in the request."""
    findings = Findings()
    if answer.late:
        findings.add("answer-late", f"{answer.broken}. A slow LM needs a longer --timeout, or a lower --concurrency.")
    if not answer.status:
        findings.add("stream-cut", f"{answer.broken}.")
        return findings.in_order()
    if answer.status != 200:
        findings.add("http-status", f"A valid request is answered with {answer.status}.")
        return [*findings.in_order(), *error_violations(answer, settings.contract)]
    if not answer.is_stream:
        findings.add("not-a-stream", f"The answer is of type {answer.content_type or 'unknown'!r}.")
        return findings.in_order()
    stream = answer.stream
    for data in stream.unreadable:
        findings.add("stream-json", f"An event's data is {format_value(data)}.")
    ended = stream.ended or any(kind(event) in TERMINAL for event in stream.events)
    if answer.broken or not ended:
        findings.add("stream-cut", f"{answer.broken or 'no terminal event and no [DONE]'}.")
    elif settings.contract == "openresponses" and not stream.ended:
        findings.add("done-missing", "The stream ends without [DONE].")
    if settings.contract == "openresponses":
        _check_event_lines(stream, findings)
    checked = check_stream(
        stream.events, answered=settings.answered, contract=settings.contract, client_tools=client_tools
    )
    return [*findings.in_order(), *checked]


def _check_event_lines(stream: Stream, findings: Findings) -> None:
    wrong = [
        (name, kind(event)) for name, event in zip(stream.names, stream.events, strict=True) if name != kind(event)
    ]
    if wrong:
        name, event_type = wrong[0]
        message = f"{len(wrong)} of {len(stream.events)} events, such as {event_type or 'an untyped one'}"
        findings.add("event-line", f"{message}: {f'event: {name}' if name else 'there is none'}.")


def error_violations(answer: Answer, contract: Contract) -> list[Finding]:
    """Check an HTTP error."""
    findings = Findings(contract)
    body = answer.json
    error = mapping(body).get("error")
    name = "type" if contract == "openresponses" else "code"  # the code may be null there
    if not isinstance(error, dict) or not isinstance(error.get("message"), str) or not error.get(name):
        findings.add("http-error-shape", f"HTTP {answer.status} came with {format_value(body or answer.body, 120)}.")
    fields = mapping(body)
    message = mapping(error).get("message") or error or fields.get("message") or fields.get("detail")
    if not message:
        findings.add("http-error-mute", f"HTTP {answer.status} came with {format_value(answer.body, 120)}.")
    check_leaks(body if body is not None else answer.body.decode(errors="replace"), findings)
    return findings.in_order()


def probe_stream(name: str, endpoint: Endpoint, settings: Settings, marker: str) -> tuple[Probe, Answer]:
    """Send a valid request with a stream."""
    answer = endpoint.ask(endpoint.body(settings.format_question(marker), stream=True))
    events = answer.stream.events if answer.is_stream else ()
    violations = stream_violations(answer, settings)
    if settings.echo and events:
        violations = [*violations, *echo_violations(answer, marker)]
    facts = {"events": len(events), "deltas": sum(kind(event).endswith(".delta") for event in events)}
    return Probe(violations, name, 1, facts), answer


def echo_violations(answer: Answer, marker: str) -> list[Finding]:
    """Check that an agent that repeats its question kept the marker, in its deltas and in the finished message."""
    findings = Findings()
    events = answer.stream.events
    final_text = message_text(
        [mapping(event.get("item")) for event in events if kind(event).endswith("output_item.done")]
    )
    for name, text in (("text of the deltas", streamed_text(events)), ("finished message", final_text)):
        if marker not in text:
            findings.add("marker-lost", f"The {name} ({len(text)} characters) lacks the marker {marker}.")
    return findings.in_order()


def probe_response(endpoint: Endpoint, settings: Settings, marker: str, streamed: Answer) -> Probe:
    """Send a valid request without a stream; if ``deterministic``, compare the answer with the stream ``streamed``."""
    findings = Findings()
    answer = endpoint.ask(endpoint.body(settings.format_question(marker)))
    body = answer.json
    if answer.broken:
        findings.add("answer-late" if answer.late else "http-body", f"{answer.broken}.")
    elif answer.status != 200:
        findings.add("http-status", f"A valid request is answered with {answer.status}.")
        return Probe([*findings.in_order(), *error_violations(answer, settings.contract)], "response", 1)
    elif not isinstance(body, dict):
        findings.add("http-body", f"The body is {format_value(answer.body)}.")
    else:
        violations = check_response(body, answered=settings.answered, contract=settings.contract)
        if settings.deterministic and streamed.is_stream:
            violations += compare(streamed.stream.events, body)
        return Probe(violations, "response", 1)
    return Probe(findings.in_order(), "response", 1)


def probe_bad_requests(endpoint: Endpoint, settings: Settings) -> Probe:
    """Send invalid requests, and requests that only some endpoints accept."""
    question = settings.format_question("none")
    unknown = {**mapping(endpoint.extra.get("custom_inputs")), _UNKNOWN_INPUT: 1}
    cases: dict[str, tuple[Any, Callable[[Findings, str, Answer], None]]] = {
        "invalid JSON": (b"{", _must_refuse),
        "a JSON list": ([1], _must_refuse),
        "no input": ({**endpoint.extra}, _must_refuse),
        "an item without content": ({**endpoint.extra, "input": [{"role": "user"}]}, _must_refuse),
        "a string as input": ({**endpoint.extra, "input": question}, _may_refuse_string),
        "an unknown custom input": (endpoint.body(question, custom_inputs=unknown), _may_ignore_input),
        "an unknown custom input, streamed": (
            endpoint.body(question, custom_inputs=unknown, stream=True),
            _may_ignore_input,
        ),
    }
    violations: list[Finding] = []
    facts: dict[str, Any] = {}
    for name, (body, check) in cases.items():
        findings = Findings(settings.contract)
        answer = endpoint.ask(body)
        facts[name] = answer.status
        if answer.late:
            findings.add("answer-late", f"{answer.broken}.")
        check(findings, name, answer)
        errors = error_violations(answer, settings.contract) if answer.status >= 400 else []
        if answer.is_stream:
            errors = [error for error in stream_violations(answer, settings) if error.severity is Severity.error]
        named = (dataclasses.replace(error, message=f"{name}: {error.message}", event=None) for error in errors)
        violations += [*findings.in_order(), *named]
    return Probe(violations, "bad requests", len(cases), facts)


def _must_refuse(findings: Findings, name: str, answer: Answer) -> None:
    if answer.status == 200:
        findings.add("bad-request-accepted", f"{name}: answered with 200.")
    _no_failure(findings, name, answer)


def _may_refuse_string(findings: Findings, name: str, answer: Answer) -> None:
    if 400 <= answer.status < 500:
        findings.add("string-input-refused", f"{name}: answered with {answer.status}.")
    _no_failure(findings, name, answer)


def _may_ignore_input(findings: Findings, name: str, answer: Answer) -> None:
    kinds = [kind(event) for event in answer.stream.events] if answer.is_stream else []
    if answer.status == 200 and not {"error", "response.failed"} & set(kinds):
        findings.add("unknown-input-ignored", f"{name}: answered with 200.")
    _no_failure(findings, name, answer)


def _no_failure(findings: Findings, name: str, answer: Answer) -> None:
    if answer.status >= 500 or not answer.status:
        findings.add("http-status", f"{name}: answered with {answer.status or answer.broken}.")


def probe_disconnects(endpoint: Endpoint, settings: Settings, marker: str, earlier_errors: set[str]) -> Probe:
    """Disconnect in mid-stream, and check that the next stream breaks no rules except ``earlier_errors``."""
    before = endpoint.healthy()
    statuses = [
        endpoint.disconnect(endpoint.body(settings.format_question(marker), stream=True)) for _ in range(_DISCONNECTS)
    ]
    findings = Findings()
    if before and not endpoint.healthy():
        findings.add("healthy-after-disconnect", "GET /health returned 200 before, and doesn't now.")
    after, _ = probe_stream("after", endpoint, settings, marker)
    broken = {error.check for error in after.findings if error.severity is Severity.error} - earlier_errors
    if broken:
        findings.add("healthy-after-disconnect", f"The next stream breaks {', '.join(sorted(broken))}.")
    return Probe(findings.in_order(), "clients that leave", _DISCONNECTS + 1, {"left": len(statuses)})


LOSS_RULES = frozenset({"text-lost", "marker-lost", "stream-cut", "answer-late", "empty-stream", "text-adds-up"})
"""A stream that breaks one of these rules counts as lost."""

_BUSY_STATUSES = (429, 503)


def new_marker() -> str:
    """Return a random word that appears in no other request."""
    return f"marker-{secrets.token_hex(6)}"


def probe_concurrency(endpoint: Endpoint, settings: Settings, streams: int, earlier: Iterable[Answer] = ()) -> Probe:
    """Send ``streams`` streamed requests at once.

    Args:
        endpoint: the endpoint.
        settings: the question and what to expect.
        streams: the number of requests; each takes a thread.
        earlier: answers to earlier sequential requests; if their text came in deltas, all text should.
    """
    markers = [new_marker() for _ in range(streams)]
    answers = _ask_concurrently(endpoint, settings, markers)
    previous = list(earlier)
    context = _Context(
        markers=markers,
        streamed=any(has_deltas(answer) for answer in [*previous, *answers]),
        ids=frozenset(id for answer in previous for id in _ids(answer)),
        shared=_shared_ids(answers),
    )
    per_stream = [
        list(_check_answer(answer, marker, context, settings)) for answer, marker in zip(answers, markers, strict=True)
    ]
    return Probe(_merge(per_stream), f"{streams} at once", streams, _facts(per_stream))


def has_deltas(answer: Answer) -> bool:
    """Whether this is a stream with text deltas."""
    return answer.is_stream and bool(streamed_text(answer.stream.events))


def lacks_deltas(answer: Answer) -> bool:
    """Whether this is a stream without text deltas."""
    return answer.is_stream and not streamed_text(answer.stream.events)


def _ask_concurrently(endpoint: Endpoint, settings: Settings, markers: Sequence[str]) -> list[Answer]:
    barrier = threading.Barrier(len(markers))

    def ask(marker: str) -> Answer:
        barrier.wait()
        return endpoint.ask(endpoint.body(settings.format_question(marker), stream=True))

    with ThreadPoolExecutor(len(markers), thread_name_prefix="oneturn-check") as pool:
        return list(pool.map(ask, markers))


@dataclass(frozen=True)
class _Context:
    """Facts about all answers: markers, whether text comes in deltas, ids of earlier answers, ids in two of them."""

    markers: Sequence[str]
    streamed: bool
    ids: frozenset[str]
    shared: frozenset[str]


def _check_answer(answer: Answer, marker: str, context: _Context, settings: Settings) -> Iterator[Finding]:
    findings = Findings()
    if answer.status in _BUSY_STATUSES:
        findings.add("refused-under-load", f"HTTP {answer.status}.")
        yield from findings.in_order()
        return
    foreign_markers = [other for other in context.markers if other != marker and other.encode() in answer.body]
    if foreign_markers:
        findings.add("marker-mixed", f"The answer to {marker} contains {', '.join(foreign_markers)}.")
    if context.streamed and lacks_deltas(answer):
        length = len(message_text(done_items(answer.stream.events)))
        findings.add("text-lost", f"There is no delta; the finished message has {length} characters.")
    ids = set(_ids(answer))
    if ids & context.ids:
        findings.add("ids-constant", f"{sorted(ids & context.ids)} was an id of an earlier answer.")
    elif ids & context.shared:
        findings.add("ids-shared", f"{sorted(ids & context.shared)} is also an id of another answer.")
    yield from findings.in_order()
    yield from stream_violations(answer, settings)
    if settings.echo and answer.is_stream:
        yield from echo_violations(answer, marker)


def _ids(answer: Answer) -> list[str]:
    events = answer.stream.events if answer.is_stream else ()
    responses = [mapping(event.get("response")) for event in events]
    return [entry["id"] for entry in (*responses, *done_items(events)) if isinstance(entry.get("id"), str)]


def _shared_ids(answers: Sequence[Answer]) -> frozenset[str]:
    seen: set[str] = set()
    shared: set[str] = set()
    for answer in answers:
        ids = set(_ids(answer))
        shared |= seen & ids
        seen |= ids
    return frozenset(shared)


def _facts(per_stream: Sequence[Sequence[Finding]]) -> dict[str, Any]:
    broken = [{violation.check for violation in violations} for violations in per_stream]
    return {
        "streams": len(broken),
        "lost": sum(bool(rules & LOSS_RULES) for rules in broken),
        "mixed": sum("marker-mixed" in rules for rules in broken),
        "refused": sum(bool(rules & {"refused-under-load", "http-status"}) for rules in broken),
    }


def _merge(per_stream: Sequence[Sequence[Finding]]) -> list[Finding]:
    """Merge violations to one per rule: the first, with the number of streams that break the rule."""
    first: dict[str, Finding] = {}
    streams: dict[str, int] = {}
    for violations in per_stream:
        for violation in violations:
            first.setdefault(violation.check, violation)
        for rule in {violation.check for violation in violations}:
            streams[rule] = streams.get(rule, 0) + 1
    return [
        dataclasses.replace(
            violation, message=f"in {streams[rule]} of {len(per_stream)} streams, such as: {violation.message}"
        )
        for rule, violation in first.items()
    ]
