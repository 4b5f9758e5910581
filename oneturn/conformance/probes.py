"""What an endpoint is asked, one request after the other."""

from __future__ import annotations

import dataclasses
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from oneturn.conformance.endings import check_leaks
from oneturn.conformance.endpoint import Answer, Endpoint
from oneturn.conformance.events import TERMINAL, done_items, kind, mapping, message_text, speaks_weaker, streamed_text
from oneturn.conformance.report import Probe
from oneturn.conformance.response import check_response, compare
from oneturn.conformance.rules import Findings, Violation, shown
from oneturn.conformance.stream import check_stream
from oneturn.core.findings import Severity

QUESTION = "In one sentence: what can you do for me? (Reference: {marker})"
_UNKNOWN_INPUT = "no_such_input_of_oneturn_check"
_LEAVES = 3


@dataclass(frozen=True)
class Settings:
    """How to ask.

    Attributes:
        question: what is asked; ``{marker}`` in it becomes a word of each request's own.
        echo: whether the agent is known to repeat the marker.
        deterministic: whether it answers the same question always in the same words.
        answered: whether it runs all its tools itself; see :func:`oneturn.conformance.check_stream`.
    """

    question: str = QUESTION
    echo: bool = False
    deterministic: bool = False
    answered: bool = False

    def asked(self, marker: str) -> str:
        """The question with its marker."""
        return self.question.replace("{marker}", marker)


def stream_violations(answer: Answer, settings: Settings) -> list[Violation]:
    """What is wrong with an answer that should be a stream."""
    found = Findings()
    if answer.late:
        found.add("answer-late", f"{answer.broken}.")
    if not answer.status:
        found.add("stream-cut", f"{answer.broken}.")
        return found.in_order()
    if answer.status != 200:
        found.add("http-status", f"A good request is answered with {answer.status}.")
        return [*found.in_order(), *error_violations(answer)]
    if not answer.is_stream:
        found.add("not-a-stream", f"The answer is of type {answer.content_type or 'unknown'!r}.")
        return found.in_order()
    stream = answer.stream
    for data in stream.unreadable:
        found.add("stream-json", f"An event's data is {shown(data)}.")
    ended = stream.ended or any(kind(event) in TERMINAL for event in stream.events)
    if answer.broken or not ended:
        found.add("stream-cut", f"{answer.broken or 'neither a terminal event nor [DONE]'}.")
    return [*found.in_order(), *check_stream(stream.events, answered=settings.answered)]


def error_violations(answer: Answer) -> list[Violation]:
    """What is wrong with an HTTP answer that tells an error."""
    found = Findings()
    told = answer.json
    error = mapping(told).get("error")
    if not isinstance(error, dict) or not isinstance(error.get("message"), str) or not error.get("code"):
        found.add("http-error-shape", f"HTTP {answer.status} came with {shown(told or answer.body, 120)}.")
    spoken = mapping(told)
    message = mapping(error).get("message") or error or spoken.get("message") or spoken.get("detail")
    if not message:
        found.add("http-error-mute", f"HTTP {answer.status} came with {shown(answer.body, 120)}.")
    check_leaks(told if told is not None else answer.body.decode(errors="replace"), found)
    return found.in_order()


def probe_stream(name: str, endpoint: Endpoint, settings: Settings, marker: str) -> tuple[Probe, Answer]:
    """A good request, streamed."""
    answer = endpoint.ask(endpoint.body(settings.asked(marker), stream=True))
    events = answer.stream.events if answer.is_stream else ()
    violations = stream_violations(answer, settings)
    if settings.echo and events:
        violations = [*violations, *echo_violations(answer, marker)]
    facts = {"events": len(events), "deltas": sum(kind(event).endswith(".delta") for event in events)}
    return Probe(name, 1, violations, facts), answer


def echo_violations(answer: Answer, marker: str) -> list[Violation]:
    """Whether an agent that repeats its question lost a part of it, in its deltas or in the end."""
    found = Findings()
    events = answer.stream.events
    ended = message_text([mapping(event.get("item")) for event in events if kind(event).endswith("output_item.done")])
    for where, text in (("deltas", streamed_text(events)), ("finished message", ended)):
        if marker not in text:
            found.add("marker-lost", f"The {where}, {len(text)} characters, lack the marker {marker}.")
    return found.in_order()


def probe_plain(endpoint: Endpoint, settings: Settings, marker: str, streamed: Answer) -> Probe:
    """A good request, not streamed; against the same request streamed, if that is to be the same."""
    found = Findings()
    answer = endpoint.ask(endpoint.body(settings.asked(marker)))
    told = answer.json
    if answer.broken:
        found.add("answer-late" if answer.late else "http-body", f"{answer.broken}.")
    elif answer.status != 200:
        found.add("http-status", f"A good request is answered with {answer.status}.")
        return Probe("response", 1, [*found.in_order(), *error_violations(answer)])
    elif not isinstance(told, dict):
        found.add("http-body", f"The body is {shown(answer.body)}.")
    else:
        violations = check_response(told, answered=settings.answered)
        if settings.deterministic and streamed.is_stream:
            violations += compare(streamed.stream.events, told)
        return Probe("response", 1, violations)
    return Probe("response", 1, found.in_order())


def probe_bad_requests(endpoint: Endpoint, settings: Settings) -> Probe:
    """Requests that are wrong, or that some endpoints take and others don't."""
    question = settings.asked("none")
    unknown = {**mapping(endpoint.extra.get("custom_inputs")), _UNKNOWN_INPUT: 1}
    cases: dict[str, tuple[Any, Callable[[Findings, str, Answer], None]]] = {
        "no JSON": (b"{", _must_refuse),
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
    violations: list[Violation] = []
    facts: dict[str, Any] = {}
    for name, (body, judge) in cases.items():
        found = Findings()
        answer = endpoint.ask(body)
        facts[name] = answer.status
        if answer.late:
            found.add("answer-late", f"{answer.broken}.")
        judge(found, name, answer)
        told = error_violations(answer) if answer.status >= 400 else []
        if answer.is_stream:
            told = [one for one in stream_violations(answer, settings) if one.severity is Severity.error]
        named = (dataclasses.replace(one, message=f"{name}: {one.message}", event=None) for one in told)
        violations += [*found.in_order(), *named]
    return Probe("bad requests", len(cases), violations, facts)


def _must_refuse(found: Findings, name: str, answer: Answer) -> None:
    if answer.status == 200:
        found.add("bad-request-accepted", f"{name}: answered with 200.")
    _no_failure(found, name, answer)


def _may_refuse_string(found: Findings, name: str, answer: Answer) -> None:
    if 400 <= answer.status < 500:
        found.add("string-input-refused", f"{name}: answered with {answer.status}.")
    _no_failure(found, name, answer)


def _may_ignore_input(found: Findings, name: str, answer: Answer) -> None:
    kinds = [kind(event) for event in answer.stream.events] if answer.is_stream else []
    if answer.status == 200 and not {"error", "response.failed"} & set(kinds):
        found.add("unknown-input-ignored", f"{name}: answered with 200.")
    _no_failure(found, name, answer)


def _no_failure(found: Findings, name: str, answer: Answer) -> None:
    if answer.status >= 500 or not answer.status:
        found.add("http-status", f"{name}: answered with {answer.status or answer.broken}.")


def probe_leaving(endpoint: Endpoint, settings: Settings, marker: str, known: set[str]) -> Probe:
    """Clients that go away in mid-stream, and whether the server breaks no rules after them but those ``known``."""
    before = endpoint.healthy()
    statuses = [endpoint.leave(endpoint.body(settings.asked(marker), stream=True)) for _ in range(_LEAVES)]
    found = Findings()
    if before and not endpoint.healthy():
        found.add("healthy-after-disconnect", "GET /health answered 200 before, and doesn't now.")
    after, _ = probe_stream("after", endpoint, settings, marker)
    broken = {one.rule for one in after.violations if one.severity is Severity.error} - known
    if broken:
        found.add("healthy-after-disconnect", f"The next stream breaks {', '.join(sorted(broken))}.")
    return Probe("clients that leave", _LEAVES + 1, found.in_order(), {"left": len(statuses)})


def contract_of(answer: Answer) -> str:
    """Which contract an endpoint's stream is of: OpenAI's, MLflow's, or none if no stream came."""
    if not (answer.is_stream and answer.stream.events):
        return ""
    return "MLflow" if speaks_weaker(answer.stream.events) else "OpenAI"


LOSSES = frozenset({"text-lost", "marker-lost", "stream-cut", "answer-late", "empty-stream", "text-adds-up"})
"""The rules by which a stream counts as lost."""

_BUSY = (429, 503)


def new_marker() -> str:
    """A word that nobody else says."""
    return f"marker-{secrets.token_hex(6)}"


def probe_concurrency(endpoint: Endpoint, settings: Settings, streams: int, others: Iterable[Answer] = ()) -> Probe:
    """``streams`` streamed requests at once.

    Args:
        endpoint: whom to ask.
        settings: how.
        streams: how many; each takes a thread.
        others: answers that came one by one before: if their text was streamed, all texts should be.
    """
    markers = [new_marker() for _ in range(streams)]
    answers = _all_at_once(endpoint, settings, markers)
    before = list(others)
    known = _Known(
        markers=markers,
        streamed=any(came_in_deltas(answer) for answer in [*before, *answers]),
        ids=frozenset(id for answer in before for id in _ids(answer)),
        shared=_shared_ids(answers),
    )
    per_stream = [
        list(_judged(answer, marker, known, settings)) for answer, marker in zip(answers, markers, strict=True)
    ]
    return Probe(f"{streams} at once", streams, _merged(per_stream), _facts(per_stream))


def came_in_deltas(answer: Answer) -> bool:
    """Whether text of this answer came in deltas."""
    return answer.is_stream and bool(streamed_text(answer.stream.events))


def lost_text(answer: Answer) -> bool:
    """Whether there is text in this stream's messages, or none at all, and no delta of it."""
    return answer.is_stream and not streamed_text(answer.stream.events)


def _all_at_once(endpoint: Endpoint, settings: Settings, markers: Sequence[str]) -> list[Answer]:
    together = threading.Barrier(len(markers))

    def ask(marker: str) -> Answer:
        together.wait()
        return endpoint.ask(endpoint.body(settings.asked(marker), stream=True))

    with ThreadPoolExecutor(len(markers), thread_name_prefix="oneturn-check") as pool:
        return list(pool.map(ask, markers))


@dataclass(frozen=True)
class _Known:
    """What is known of all answers: markers, whether texts come in deltas, ids from before, ids in two of them."""

    markers: Sequence[str]
    streamed: bool
    ids: frozenset[str]
    shared: frozenset[str]


def _judged(answer: Answer, marker: str, known: _Known, settings: Settings) -> Iterator[Violation]:
    found = Findings()
    if answer.status in _BUSY:
        found.add("refused-under-load", f"HTTP {answer.status}.")
        yield from found.in_order()
        return
    strangers = [other for other in known.markers if other != marker and other.encode() in answer.body]
    if strangers:
        found.add("marker-mixed", f"The answer to {marker} holds {', '.join(strangers)}.")
    if known.streamed and lost_text(answer):
        length = len(message_text(done_items(answer.stream.events)))
        found.add("text-lost", f"No delta came; the finished message has {length} characters.")
    ids = set(_ids(answer))
    if ids & known.ids:
        found.add("ids-constant", f"{sorted(ids & known.ids)} was an id before.")
    elif ids & known.shared:
        found.add("ids-shared", f"{sorted(ids & known.shared)} is an id of another answer too.")
    yield from found.in_order()
    yield from stream_violations(answer, settings)
    if settings.echo and answer.is_stream:
        yield from echo_violations(answer, marker)


def _ids(answer: Answer) -> list[str]:
    events = answer.stream.events if answer.is_stream else ()
    responses = [mapping(event.get("response")) for event in events]
    return [told["id"] for told in (*responses, *done_items(events)) if isinstance(told.get("id"), str)]


def _shared_ids(answers: Sequence[Answer]) -> frozenset[str]:
    seen: set[str] = set()
    shared: set[str] = set()
    for answer in answers:
        ids = set(_ids(answer))
        shared |= seen & ids
        seen |= ids
    return frozenset(shared)


def _facts(per_stream: Sequence[Sequence[Violation]]) -> dict[str, Any]:
    broken = [{violation.rule for violation in violations} for violations in per_stream]
    return {
        "streams": len(broken),
        "lost": sum(bool(rules & LOSSES) for rules in broken),
        "mixed": sum("marker-mixed" in rules for rules in broken),
        "refused": sum(bool(rules & {"refused-under-load", "http-status"}) for rules in broken),
    }


def _merged(per_stream: Sequence[Sequence[Violation]]) -> list[Violation]:
    """One violation a rule: the first, and in how many streams it was found."""
    first: dict[str, Violation] = {}
    streams: dict[str, int] = {}
    for violations in per_stream:
        for violation in violations:
            first.setdefault(violation.rule, violation)
        for rule in {violation.rule for violation in violations}:
            streams[rule] = streams.get(rule, 0) + 1
    return [
        dataclasses.replace(
            violation, message=f"in {streams[rule]} of {len(per_stream)} streams, such as: {violation.message}"
        )
        for rule, violation in first.items()
    ]
