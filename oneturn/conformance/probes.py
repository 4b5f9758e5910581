"""What an endpoint is asked, one request after the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from oneturn.conformance.ending import check_leaks
from oneturn.conformance.endpoint import Answer, Endpoint
from oneturn.conformance.reading import TERMINAL, kind, mapping, message_text, speaks_weaker, streamed_text
from oneturn.conformance.report import Probe
from oneturn.conformance.response import check_response, compare
from oneturn.conformance.rules import Findings, Severity, Violation, shown
from oneturn.conformance.stream import check_stream

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
