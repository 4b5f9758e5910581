"""A stream of events, graded."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from oneturn.conformance.endings import check_ending, check_event_types
from oneturn.conformance.events import TERMINAL, Event, integer, kind, mapping, plain, same, speaks_weaker
from oneturn.conformance.items import check_calls, follow_items
from oneturn.conformance.rules import Findings, Violation, shown
from oneturn.conformance.texts import check_texts

_STATUS = {
    "response.created": ("in_progress", "queued"),
    "response.queued": ("queued",),
    "response.in_progress": ("in_progress",),
    "response.completed": ("completed",),
    "response.incomplete": ("incomplete",),
    "response.failed": ("failed",),
}
_BEGINNING = ("response.created", "response.queued", "response.in_progress")


def check_order(events: Sequence[Event], found: Findings) -> None:
    """Beginning, numbers, the one end, and what all responses in the stream have in common."""
    if not any(kind(event) for event in events):
        found.add("empty-stream", "The stream ended without an event.")
        return
    _check_types(events, found)
    _check_beginning(events, found)
    _check_numbers(events, found)
    _check_end(events, found)
    _check_responses(events, found)


def _check_types(events: Sequence[Event], found: Findings) -> None:
    for place, event in enumerate(events):
        if kind(event):
            continue
        if {"trace_id", "databricks_output"} & set(event):
            found.add("extra-event", f"An event of MLflow's own: {', '.join(map(str, event))}.", place)
        else:
            found.add("untyped-event", f"No type in {shown(dict(event))}.", place)


def _check_beginning(events: Sequence[Event], found: Findings) -> None:
    kinds = [kind(event) for event in events]
    created = _places(kinds, "response.created")
    if not created:
        found.add("created-missing", f"The first event is {kinds[0] or 'untyped'}.", 0)
    for place in created:
        if place != 0:
            found.add("created-misplaced", "response.created isn't the first event.", place)
    working = _places(kinds, "response.in_progress")
    expected = 1 + max(_places(kinds, "response.queued"), default=0)
    if not working:
        found.add("in-progress-missing", "There is no response.in_progress.")
    for number, place in enumerate(working):
        if number and place > working[0] + number:  # something has happened meanwhile
            found.add("in-progress-again", "response.in_progress comes again.", place)
        elif number or (created and place != expected):
            found.add("in-progress-misplaced", "response.in_progress doesn't follow response.created.", place)


def _check_numbers(events: Sequence[Event], found: Findings) -> None:
    typed = [(place, event) for place, event in enumerate(events) if event.get("type")]
    numbers = [(place, event.get("sequence_number")) for place, event in typed]
    without = [place for place, number in numbers if not integer(number)]
    if without:
        found.add("sequence-missing", f"{len(without)} of {len(events)} events have no sequence_number.", without[0])
    counted = [(place, number) for place, number in numbers if isinstance(number, int) and integer(number)]
    if counted and counted[0][1] != 0:
        found.add("sequence-start", f"The first sequence_number is {counted[0][1]}.", counted[0][0])
    for (_, before), (place, number) in itertools.pairwise(counted):
        if number != before + 1:
            found.add("sequence-gap", f"sequence_number {number} follows {before}.", place)


def _check_end(events: Sequence[Event], found: Findings) -> None:
    kinds = [kind(event) for event in events]
    ends = [place for place, name in enumerate(kinds) if name in TERMINAL]
    if not ends:
        found.add("terminal-missing", f"The last event is {kinds[-1] or 'untyped'}.", len(events) - 1)
        return
    last = ends[0]
    if kinds[last : last + 2] == ["error", "response.failed"]:
        last += 1
    for place in range(last + 1, len(events)):
        if place in ends:
            found.add("terminal-twice", f"{kinds[place]} after {kinds[last]}.", place)
        elif kinds[place]:
            found.add("after-terminal", f"{kinds[place]} after {kinds[last]}.", place)


def _check_responses(events: Sequence[Event], found: Findings) -> None:
    responses = [
        (place, kind(event), mapping(event.get("response")))
        for place, event in enumerate(events)
        if kind(event) in _STATUS
    ]
    ids = [(place, response.get("id")) for place, _, response in responses]
    begun: set[str] = set()
    if any(not id for _, id in ids):
        found.add("response-id-missing", "The response has no id.", next(place for place, id in ids if not id))
    for place, name, response in responses:
        status = response.get("status")
        if status not in _STATUS[name]:
            found.add("response-status", f"{name} holds a response that is {status!r}.", place)
        if name in _BEGINNING and name not in begun and response.get("output"):
            found.add("created-output", f"{name} holds {shown(response['output'])}.", place)
        begun.add(name)
    for (_, _, before), (place, _, now) in itertools.pairwise(responses):
        if before.get("id") and now.get("id") and before["id"] != now["id"]:
            found.add("response-id-changed", f"The id {before['id']!r} became {now['id']!r}.", place)
        for field in ("created_at", "model", "object"):
            if not same(before.get(field), now.get(field)):
                found.add("response-changed", f"{field} {before.get(field)!r} became {now.get(field)!r}.", place)


def _places(kinds: Sequence[str], wanted: str) -> list[int]:
    return [place for place, name in enumerate(kinds) if name == wanted]


_BROKEN_OFF = frozenset({"error", "response.failed", "response.incomplete"})


def check_stream(
    events: Iterable[Mapping[str, Any] | BaseModel], *, answered: bool = False, earlier_calls: Collection[str] = ()
) -> list[Violation]:
    """What is wrong with a stream of Responses events; an empty list if nothing is.

    A stream with neither ``response.created`` nor ``response.output_item.added`` is taken for MLflow's weaker
    contract: what it merely leaves out are warnings then.

    Args:
        events: the whole stream, as dicts or as pydantic models of MLflow or openai.
        answered: whether the agent runs all its tools itself: a call at the end without an output is then an error;
            otherwise it is taken for one that the client shall run or approve.
        earlier_calls: ``call_id``s in the request's input, whose outputs may come without their call.
    """
    stream = [plain(event) for event in events]
    found = Findings(weaker=speaks_weaker(stream))
    check_order(stream, found)
    items = follow_items(stream, found)
    check_texts(items, found)
    ended = sorted((item for item in items if item.ended is not None), key=lambda item: item.ended or 0)
    check_calls(
        [(item.ended, item.done or {}) for item in ended],
        found,
        answered=answered,
        broken_off=any(kind(event) in _BROKEN_OFF for event in stream),
        earlier=earlier_calls,
    )
    check_ending(stream, items, found)
    check_event_types(stream, found)
    return found.in_order()
