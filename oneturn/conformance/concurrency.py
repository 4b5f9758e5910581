"""Many requests at once, each with a marker of its own: nothing may be lost, nothing may be mixed."""

from __future__ import annotations

import dataclasses
import secrets
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from oneturn.conformance.endpoint import Answer, Endpoint
from oneturn.conformance.probes import Settings, echo_violations, stream_violations
from oneturn.conformance.reading import done_items, mapping, message_text, streamed_text
from oneturn.conformance.report import Probe
from oneturn.conformance.rules import Findings, Violation

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
