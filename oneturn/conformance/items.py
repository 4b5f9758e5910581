"""Checks of items: each is added, filled and done, under one id and one output index; each call has an output."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from oneturn.conformance.events import ADDED, DONE, Event, kind, mapping, same
from oneturn.conformance.rules import Findings, format_value

_CHANGING_FIELDS = frozenset({"id", "status", "content", "summary", "encrypted_content", "arguments", "input", "code"})
_NAME_FIELDS = frozenset({"type", "call_id", "name", "role", "server_label"})
_ARGUMENTS = "response.function_call_arguments.done"
_BROKEN_OFF = frozenset({"error", "response.failed"})


@dataclass
class Item:
    """One item of the stream.

    Attributes:
        id: its id in its first event.
        output_index: its ``output_index`` in its first event.
        added: the item as it was added.
        done: the item as it was done.
        events: the events between, with their positions in the stream.
        start: the position in the stream of its first event.
        end: the position in the stream of its ``response.output_item.done``.
    """

    id: str | None
    output_index: int | None
    start: int
    added: Mapping[str, Any] | None = None
    done: Mapping[str, Any] | None = None
    events: list[tuple[int, Event]] = field(default_factory=list)
    end: int | None = None

    def __str__(self) -> str:
        item = self.done or self.added or {}
        return f"{item.get('type') or 'item'} {self.id or 'without id'}"


def collect_items(events: Sequence[Event], findings: Findings) -> list[Item]:
    """Collect the items of a stream, in order of their first events."""
    collector = _ItemCollector(findings)
    for position, event in enumerate(events):
        name = kind(event)
        if name == ADDED:
            collector.added(position, event)
        elif name == DONE:
            collector.done(position, event)
        elif "item_id" in event:
            collector.between(position, event)
    collector.finish(broken_off=any(kind(event) in _BROKEN_OFF for event in events))
    return collector.items


class _ItemCollector:
    def __init__(self, findings: Findings):
        self.items: list[Item] = []
        self._findings = findings

    def added(self, position: int, event: Event) -> None:
        item = mapping(event.get("item"))
        self._check_new_id(item, position)
        new = Item(_id(item), self._index(event, position), position, added=item)
        if new.output_index is not None and new.output_index != len(self.items):
            message = f"{new} is added with output_index {new.output_index}, expected {len(self.items)}."
            self._findings.add("output-index", message, position)
        self.items.append(new)

    def done(self, position: int, event: Event) -> None:
        item = mapping(event.get("item"))
        index = self._index(event, position)
        current = self._find_open(_id(item), index)
        if current is None:
            if self._is_done(_id(item), index):
                self._findings.add("item-done-twice", f"{item.get('type')} {_id(item)} is done again.", position)
                return
            current = Item(_id(item), index, position)
            self._check_new_id(item, position)
            self.items.append(current)
        if current.added is None and not current.events:
            self._findings.add("item-not-added", f"A {item.get('type')} is done but was never added.", position)
        current.done, current.end = item, position
        self._check_unchanged(current, item, index, position)

    def between(self, position: int, event: Event) -> None:
        id, index = event.get("item_id"), self._index(event, position)
        current = next((item for item in self.items if item.id == id and item.end is None), None)
        if current is None:
            if any(item.id == id for item in self.items):
                self._findings.add("event-outside-item", f"{kind(event)} for {id!r}, which is already done.", position)
                return
            if any(item.added is not None for item in self.items):
                self._findings.add("event-outside-item", f"{kind(event)} for {id!r}, which isn't open.", position)
            self._findings.add("item-not-added", f"{kind(event)} comes before its item was added.", position)
            current = Item(id if isinstance(id, str) else None, index, position)
            self.items.append(current)
        elif current.output_index is None:
            current.output_index = index
        elif index is not None and index != current.output_index:
            message = f"{kind(event)} has output_index {index}, its item {current.output_index}."
            self._findings.add("output-index", message, position)
        if kind(event) == _ARGUMENTS and current.added and event.get("name") not in (None, current.added.get("name")):
            self._findings.add("item-changed", f"name of {current} differs from the added item's.", position)
        current.events.append((position, event))

    def finish(self, broken_off: bool) -> None:
        for item in self.items:
            if item.end is None:
                rule = "item-left-open" if broken_off else "item-not-done"
                self._findings.add(rule, f"{item} was started and never done.", item.start)
        indexes = [item.output_index for item in self.items if item.output_index is not None]
        if sorted(indexes) != list(range(len(indexes))):
            self._findings.add("output-index", f"The items have output_index {indexes}, expected 0, 1, 2 ….")

    def _find_open(self, id: str | None, index: int | None) -> Item | None:
        open_items = [item for item in self.items if item.end is None]
        by_id = [item for item in open_items if id is not None and item.id == id]
        by_index = [item for item in open_items if index is not None and item.output_index == index]
        return next(iter(by_id + by_index), None)

    def _is_done(self, id: str | None, index: int | None) -> bool:
        done = [item for item in self.items if item.end is not None and item.id == id]
        return any(item.output_index == index and index is not None for item in done)

    def _check_new_id(self, item: Mapping[str, Any], position: int) -> None:
        id = _id(item)
        if id is None:
            self._findings.add("item-id-missing", f"A {item.get('type')} has no id.", position)
        elif any(other.id == id for other in self.items):
            self._findings.add("item-id-reused", f"The id {id!r} names a second item, a {item.get('type')}.", position)

    def _check_unchanged(self, item: Item, done: Mapping[str, Any], index: int | None, position: int) -> None:
        if item.output_index is None:
            item.output_index = index
        elif index is not None and index != item.output_index:
            self._findings.add(
                "output-index", f"{item} moved from output_index {item.output_index} to {index}.", position
            )
        if item.id != _id(done):
            self._findings.add("item-id-changed", f"The id {item.id!r} became {done.get('id')!r}.", position)
        if done.get("status") == "in_progress":
            self._findings.add("item-status", f"{item} is done with the status in_progress.", position)
        for name, value in (item.added or {}).items():
            given = value is not None and (value not in ("", [], {}) or name in _NAME_FIELDS)
            if given and name not in _CHANGING_FIELDS and not same(value, done.get(name)):
                self._findings.add("item-changed", f"{name} of {item} differs from the added item's.", position)
        for name in sorted(_NAME_FIELDS & done.keys()):
            if item.added is not None and item.added.get(name) is None and done[name] is not None:
                self._findings.add("item-changed", f"{name} of {item} is missing from the added item.", position)

    def _index(self, event: Event, position: int) -> int | None:
        index = event.get("output_index")
        if isinstance(index, int) and not isinstance(index, bool):
            return index
        self._findings.add("output-index-missing", f"{kind(event)} has no output_index.", position)
        return None


def _id(item: Mapping[str, Any]) -> str | None:
    id = item.get("id")
    return id if isinstance(id, str) and id else None


PositionedItem = tuple[int | None, Mapping[str, Any]]
"""A done item and its position in the stream; ``None`` outside a stream."""


def check_calls(
    items: Sequence[PositionedItem], findings: Findings, *, answered: bool, broken_off: bool, earlier: Collection[str]
) -> None:
    """Check that every output has its call, and every call its output.

    Args:
        items: the done items, in order.
        findings: collects the violations.
        answered: whether the agent runs all its tools itself; then a call at the end must have its output too.
        broken_off: whether the response failed or is incomplete; then its last calls need no output.
        earlier: the ``call_id``s in the request's input.
    """
    calls: dict[str, int] = {}
    outputs: set[str] = set()
    for number, (position, item) in enumerate(items):
        call_id = str(item.get("call_id"))
        if item.get("type") == "function_call":
            if call_id in calls:
                findings.add("call-id-reused", f"A second call has the call_id {call_id!r}.", position)
            calls[call_id] = number
            _check_arguments(item, position, findings)
        elif item.get("type") == "function_call_output":
            if call_id in outputs:
                findings.add("call-id-reused", f"A second output has the call_id {call_id!r}.", position)
            elif call_id not in calls and call_id not in earlier:
                findings.add("output-without-call", f"No earlier call has the call_id {call_id!r}.", position)
            outputs.add(call_id)
    for call_id in calls.keys() - outputs:
        number = calls[call_id]
        if not (broken_off or _ends_turn(items[number + 1 :])) or (answered and not broken_off):
            findings.add("call-without-output", f"The call {call_id!r} has no output.", items[number][0])


def _ends_turn(after: Sequence[PositionedItem]) -> bool:
    """Whether the turn ended after a call, so that the client may run it; ``after`` holds the items that follow."""
    allowed = ("function_call", "function_call_output", "mcp_approval_request")
    return all(item.get("type") in allowed for _, item in after)


def _check_arguments(item: Mapping[str, Any], position: int | None, findings: Findings) -> None:
    raw = item.get("arguments")
    try:
        arguments = json.loads(raw) if isinstance(raw, str) else None
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        findings.add("arguments-json", f"The arguments of {item.get('name')} are {format_value(raw)}.", position)
