"""Check a stream of events."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from oneturn.conformance.endings import check_ending
from oneturn.conformance.events import TERMINAL, Event, integer, is_mlflow_contract, kind, mapping, same, to_mapping
from oneturn.conformance.items import check_calls, collect_items
from oneturn.conformance.open_responses import check_specification
from oneturn.conformance.openai_types import check_event_types
from oneturn.conformance.rules import Contract, Findings, format_value
from oneturn.conformance.texts import check_texts
from oneturn.core.findings import Finding

_STATUS = {
    "response.created": ("in_progress", "queued"),
    "response.queued": ("queued",),
    "response.in_progress": ("in_progress",),
    "response.completed": ("completed",),
    "response.incomplete": ("incomplete",),
    "response.failed": ("failed",),
}
_INITIAL = ("response.created", "response.queued", "response.in_progress")


def check_order(events: Sequence[Event], findings: Findings) -> None:
    """Check the first events, the sequence numbers, the terminal event, and the responses in the events."""
    if not any(kind(event) for event in events):
        findings.add("empty-stream", "The stream ended without an event.")
        return
    _check_types(events, findings)
    _check_start(events, findings)
    _check_numbers(events, findings)
    _check_end(events, findings)
    _check_responses(events, findings)


def _check_types(events: Sequence[Event], findings: Findings) -> None:
    for position, event in enumerate(events):
        if kind(event):
            continue
        if {"trace_id", "databricks_output"} & set(event):
            findings.add("extra-event", f"An event of MLflow or Databricks: {', '.join(map(str, event))}.", position)
        else:
            findings.add("untyped-event", f"No type in {format_value(dict(event))}.", position)


def _check_start(events: Sequence[Event], findings: Findings) -> None:
    kinds = [kind(event) for event in events]
    created = _positions(kinds, "response.created")
    if not created:
        findings.add("created-missing", f"The first event is {kinds[0] or 'untyped'}.", 0)
    for position in created:
        if position != 0:
            findings.add("created-misplaced", "response.created isn't the first event.", position)
    in_progress = _positions(kinds, "response.in_progress")
    expected = 1 + max(_positions(kinds, "response.queued"), default=0)
    if not in_progress:
        findings.add("in-progress-missing", "There is no response.in_progress.")
    for number, position in enumerate(in_progress):
        if number:
            findings.add("in-progress-again", "response.in_progress comes again.", position)
        elif created and position != expected:
            findings.add("in-progress-misplaced", "response.in_progress doesn't follow response.created.", position)


def _check_numbers(events: Sequence[Event], findings: Findings) -> None:
    typed = [(position, event) for position, event in enumerate(events) if event.get("type")]
    numbers = [(position, event.get("sequence_number")) for position, event in typed]
    missing = [position for position, number in numbers if not integer(number)]
    if missing:
        findings.add("sequence-missing", f"{len(missing)} of {len(events)} events have no sequence_number.", missing[0])
    counted = [(position, number) for position, number in numbers if isinstance(number, int) and integer(number)]
    if counted and counted[0][1] != 0:
        findings.add("sequence-start", f"The first sequence_number is {counted[0][1]}.", counted[0][0])
    for (_, before), (position, number) in itertools.pairwise(counted):
        if number != before + 1:
            findings.add("sequence-gap", f"sequence_number {number} follows {before}.", position)


def _check_end(events: Sequence[Event], findings: Findings) -> None:
    kinds = [kind(event) for event in events]
    ends = [position for position, name in enumerate(kinds) if name in TERMINAL]
    if not ends:
        findings.add("terminal-missing", f"The last event is {kinds[-1] or 'untyped'}.", len(events) - 1)
        return
    last = ends[0]
    if kinds[last : last + 2] == ["error", "response.failed"]:
        last += 1
    for position in range(last + 1, len(events)):
        if position in ends:
            findings.add("terminal-twice", f"{kinds[position]} after {kinds[last]}.", position)
        elif kinds[position]:
            findings.add("after-terminal", f"{kinds[position]} after {kinds[last]}.", position)


def _check_responses(events: Sequence[Event], findings: Findings) -> None:
    responses = [
        (position, kind(event), mapping(event.get("response")))
        for position, event in enumerate(events)
        if kind(event) in _STATUS
    ]
    ids = [(position, response.get("id")) for position, _, response in responses]
    seen: set[str] = set()
    if any(not id for _, id in ids):
        findings.add("response-id-missing", "The response has no id.", next(position for position, id in ids if not id))
    for position, name, response in responses:
        status = response.get("status")
        if status not in _STATUS[name]:
            findings.add("response-status", f"{name} has a response with the status {status!r}.", position)
        if name in _INITIAL and name not in seen and response.get("output"):
            findings.add("created-output", f"{name} contains {format_value(response['output'])}.", position)
        seen.add(name)
    for (_, _, before), (position, _, after) in itertools.pairwise(responses):
        if before.get("id") and after.get("id") and before["id"] != after["id"]:
            findings.add("response-id-changed", f"The id {before['id']!r} became {after['id']!r}.", position)
        for field in ("created_at", "model", "object"):
            if not same(before.get(field), after.get(field)):
                findings.add(
                    "response-changed", f"{field} {before.get(field)!r} became {after.get(field)!r}.", position
                )


def _positions(kinds: Sequence[str], event_type: str) -> list[int]:
    return [position for position, name in enumerate(kinds) if name == event_type]


_FAILURES = frozenset({"error", "response.failed", "response.incomplete"})


def check_stream(
    events: Iterable[Mapping[str, Any] | BaseModel],
    *,
    answered: bool = False,
    earlier_calls: Collection[str] = (),
    contract: Contract = "mlflow",
    client_tools: Collection[str] = (),
) -> list[Finding]:
    """Check a stream of Responses events. Return its violations.

    Under MLflow's contract, a stream with neither ``response.created`` nor ``response.output_item.added`` may omit
    fields and events; they are warnings.

    Args:
        events: the complete stream, as dicts or as pydantic models of MLflow or openai.
        answered: whether the agent runs all its tools itself; then a call at the end without an output is an error.
            Otherwise the client is expected to run or approve it.
        earlier_calls: the ``call_id``s in the request's input; their outputs need no call in the stream.
        contract: ``"openresponses"`` adds the rules of the Open Responses specification.
        client_tools: the names of the function tools in the request; with Open Responses, only they are called by
            ``function_call`` items.
    """
    stream = [to_mapping(event) for event in events]
    findings = Findings(contract, weaker=is_mlflow_contract(stream))
    check_order(stream, findings)
    items = collect_items(stream, findings)
    check_texts(items, findings)
    done = sorted((item for item in items if item.end is not None), key=lambda item: item.end or 0)
    check_calls(
        [(item.end, item.done or {}) for item in done],
        findings,
        answered=answered,
        broken_off=any(kind(event) in _FAILURES for event in stream),
        earlier=earlier_calls,
    )
    check_ending(stream, items, findings)
    check_event_types(stream, findings)
    if contract == "openresponses":
        check_specification(stream, client_tools, findings)
    return findings.in_order()
