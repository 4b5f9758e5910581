"""Items: each added, filled and done, under one id and at one place."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from oneturn.conformance.events import ADDED, DONE, Event, kind, mapping, same
from oneturn.conformance.rules import Findings, shown

_GROWS = frozenset({"id", "status", "content", "summary", "encrypted_content", "arguments", "input", "code"})
_NAMES = frozenset({"type", "call_id", "name", "role", "server_label"})
_ARGUMENTS = "response.function_call_arguments.done"
_BROKEN_OFF = frozenset({"error", "response.failed"})


@dataclass
class Item:
    """One item of the stream.

    Attributes:
        id: its id, as first told.
        place: its ``output_index``, as first told.
        added: the item as it was added.
        done: the item as it was done.
        events: the events between, with their places in the stream.
        begun: the place in the stream of its first event.
        ended: the place in the stream of its ``response.output_item.done``.
    """

    id: str | None
    place: int | None
    begun: int
    added: Mapping[str, Any] | None = None
    done: Mapping[str, Any] | None = None
    events: list[tuple[int, Event]] = field(default_factory=list)
    ended: int | None = None

    def __str__(self) -> str:
        told = self.done or self.added or {}
        return f"{told.get('type') or 'item'} {self.id or 'without id'}"


def follow_items(events: Sequence[Event], found: Findings) -> list[Item]:
    """The items of a stream, in the order in which they were begun."""
    follower = _Follower(found)
    for place, event in enumerate(events):
        name = kind(event)
        if name == ADDED:
            follower.added(place, event)
        elif name == DONE:
            follower.done(place, event)
        elif "item_id" in event:
            follower.between(place, event)
    follower.finish(broken_off=any(kind(event) in _BROKEN_OFF for event in events))
    return follower.items


class _Follower:
    def __init__(self, found: Findings):
        self.items: list[Item] = []
        self._found = found

    def added(self, place: int, event: Event) -> None:
        item = mapping(event.get("item"))
        self._check_new_id(item, place)
        started = Item(_id(item), self._index(event, place), place, added=item)
        if started.place is not None and started.place != len(self.items):
            message = f"{started} is added as number {started.place}, expected {len(self.items)}."
            self._found.add("output-index", message, place)
        self.items.append(started)

    def done(self, place: int, event: Event) -> None:
        item = mapping(event.get("item"))
        index = self._index(event, place)
        found = self._open(_id(item), index)
        if found is None:
            if self._is_over(_id(item), index):
                self._found.add("item-done-twice", f"{item.get('type')} {_id(item)} is done again.", place)
                return
            found = Item(_id(item), index, place)
            self._check_new_id(item, place)
            self.items.append(found)
        if found.added is None and not found.events:
            self._found.add("item-not-added", f"A {item.get('type')} is done that wasn't added.", place)
        found.done, found.ended = item, place
        self._check_kept(found, item, index, place)

    def between(self, place: int, event: Event) -> None:
        id, index = event.get("item_id"), self._index(event, place)
        found = next((item for item in self.items if item.id == id and item.ended is None), None)
        if found is None:
            if any(item.id == id for item in self.items):
                self._found.add("event-outside-item", f"{kind(event)} for {id!r}, which is done.", place)
                return
            if any(item.added is not None for item in self.items):
                self._found.add("event-outside-item", f"{kind(event)} for {id!r}, which isn't open.", place)
            self._found.add("item-not-added", f"{kind(event)} comes before its item was added.", place)
            found = Item(id if isinstance(id, str) else None, index, place)
            self.items.append(found)
        elif found.place is None:
            found.place = index
        elif index is not None and index != found.place:
            message = f"{kind(event)} has output_index {index}, its item {found.place}."
            self._found.add("output-index", message, place)
        if kind(event) == _ARGUMENTS and found.added and event.get("name") not in (None, found.added.get("name")):
            self._found.add("item-changed", f"name of {found} isn't what it was when added.", place)
        found.events.append((place, event))

    def finish(self, broken_off: bool) -> None:
        for item in self.items:
            if item.ended is None:
                rule = "item-left-open" if broken_off else "item-not-done"
                self._found.add(rule, f"{item} was begun and never done.", item.begun)
        places = [item.place for item in self.items if item.place is not None]
        if sorted(places) != list(range(len(places))):
            self._found.add("output-index", f"The items' numbers are {places}.")

    def _open(self, id: str | None, index: int | None) -> Item | None:
        waiting = [item for item in self.items if item.ended is None]
        by_id = [item for item in waiting if id is not None and item.id == id]
        by_place = [item for item in waiting if index is not None and item.place == index]
        return next(iter(by_id + by_place), None)

    def _is_over(self, id: str | None, index: int | None) -> bool:
        over = [item for item in self.items if item.ended is not None and item.id == id]
        return any(item.place == index and index is not None for item in over)

    def _check_new_id(self, item: Mapping[str, Any], place: int) -> None:
        id = _id(item)
        if id is None:
            self._found.add("item-id-missing", f"A {item.get('type')} has no id.", place)
        elif any(other.id == id for other in self.items):
            self._found.add("item-id-reused", f"The id {id!r} names a second item, a {item.get('type')}.", place)

    def _check_kept(self, item: Item, done: Mapping[str, Any], index: int | None, place: int) -> None:
        if item.place is None:
            item.place = index
        elif index is not None and index != item.place:
            self._found.add("output-index", f"{item} moved from number {item.place} to {index}.", place)
        if item.id != _id(done):
            self._found.add("item-id-changed", f"The id {item.id!r} became {done.get('id')!r}.", place)
        if done.get("status") == "in_progress":
            self._found.add("item-status", f"{item} is done, and in_progress.", place)
        for name, value in (item.added or {}).items():
            told = value is not None and (value not in ("", [], {}) or name in _NAMES)
            if told and name not in _GROWS and not same(value, done.get(name)):
                self._found.add("item-changed", f"{name} of {item} isn't what it was when added.", place)

    def _index(self, event: Event, place: int) -> int | None:
        index = event.get("output_index")
        if isinstance(index, int) and not isinstance(index, bool):
            return index
        self._found.add("output-index-missing", f"{kind(event)} has no output_index.", place)
        return None


def _id(item: Mapping[str, Any]) -> str | None:
    id = item.get("id")
    return id if isinstance(id, str) and id else None


Placed = tuple[int | None, Mapping[str, Any]]
"""A finished item, with its place in the stream if it came from one."""


def check_calls(
    items: Sequence[Placed], found: Findings, *, answered: bool, broken_off: bool, earlier: Collection[str]
) -> None:
    """That every output has its call, and every call its output.

    Args:
        items: the finished items, in order.
        found: where violations go.
        answered: whether the agent runs all its tools itself, so that a call at the end must have its output too.
        broken_off: whether the response failed or is incomplete; its last calls may be without output then.
        earlier: ``call_id``s of calls in the request's own input.
    """
    calls: dict[str, int] = {}
    outputs: set[str] = set()
    for number, (place, item) in enumerate(items):
        call_id = str(item.get("call_id"))
        if item.get("type") == "function_call":
            if call_id in calls:
                found.add("call-id-reused", f"A second call has the call_id {call_id!r}.", place)
            calls[call_id] = number
            _check_arguments(item, place, found)
        elif item.get("type") == "function_call_output":
            if call_id in outputs:
                found.add("call-id-reused", f"A second output has the call_id {call_id!r}.", place)
            elif call_id not in calls and call_id not in earlier:
                found.add("output-without-call", f"No call before has the call_id {call_id!r}.", place)
            outputs.add(call_id)
    for call_id in calls.keys() - outputs:
        number = calls[call_id]
        if not (broken_off or _ends_the_turn(items[number + 1 :])) or (answered and not broken_off):
            found.add("call-without-output", f"The call {call_id!r} has no output.", items[number][0])


def _ends_the_turn(after: Sequence[Placed]) -> bool:
    """Whether a call that is followed by this may be left to the client: nobody went on with the turn."""
    waiting = ("function_call", "function_call_output", "mcp_approval_request")
    return all(item.get("type") in waiting for _, item in after)


def _check_arguments(item: Mapping[str, Any], place: int | None, found: Findings) -> None:
    told = item.get("arguments")
    try:
        arguments = json.loads(told) if isinstance(told, str) else None
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        found.add("arguments-json", f"The arguments of {item.get('name')} are {shown(told)}.", place)
