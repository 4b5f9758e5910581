"""Complete the events of an agent's items: MLflow's documentation shows text deltas and finished items only."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Event = dict[str, Any]
Item = Mapping[str, Any]

_ADDED = "response.output_item.added"
_DONE = "response.output_item.done"
_PART = "response.content_part."
_OF_MESSAGES = ("response.output_text.", "response.refusal.", _PART)
_OF_FINISHED = ("response.function_call_arguments.", "response.reasoning")  # the finished item repeats them
_EMPTY: dict[str, dict[str, Any]] = {
    "message": {"content": []},
    "function_call": {"arguments": ""},
    "function_call_output": {"output": ""},
    "reasoning": {"summary": []},
}
"""What an item of a type lacks when it begins."""


@dataclass
class _Part:
    """A part of a message: what was sent of it."""

    kind: str
    text: str = ""
    annotations: int = 0
    has_text: bool = False
    is_done: bool = False


@dataclass
class _OpenItem:
    """An item that has begun."""

    item: Item
    index: int
    parts: dict[int, _Part] = field(default_factory=dict)

    @property
    def position(self) -> dict[str, Any]:
        return {"item_id": self.item["id"], "output_index": self.index}

    def is_message(self) -> bool:
        return bool(self.item.get("type") == "message")

    def text(self) -> str:
        return "".join(part.text for part in self.parts.values())


class ItemEvents:
    """Completes the events of one stream: each item and part begins and ends, and each event has its position.

    The items of a complete stream pass unchanged, numbered in their order.
    """

    def __init__(self) -> None:
        self._open: dict[Any, _OpenItem] = {}  # by the agent's id of the item
        self._begun = 0

    def read(self, event: Event) -> Iterator[Event]:
        """Yield the events that ``event`` stands for."""
        kind = str(event["type"])
        if kind == _ADDED:
            yield {**event, **self._begin(event["item"])}
        elif kind == _DONE:
            yield from self._end(event)
        elif "item_id" in event:
            yield from self._inside(kind, event)
        else:
            yield event

    def close(self, status: str = "incomplete", output: Any = ()) -> Iterator[Event]:
        """End the open messages with what was sent of them.

        Args:
            status: their status.
            output: the output of the response, which may have them complete.
        """
        finished = {item.get("id"): item for item in output if isinstance(item, Mapping)}
        for key, message in list(self._open.items()):
            if message.is_message():
                content = [_part(part.kind, part.text) for part in message.parts.values()]
                item = {**message.item, "content": content, "status": status}
                yield from self._end({"type": _DONE, "item": finished.get(key, item)})

    def _begin(self, given: Item) -> dict[str, Any]:
        """Begin an item; return its fields of the event."""
        item = _with_id(given)
        opened = _OpenItem(item, self._begun)
        self._open[item["id"]] = opened
        self._begun += 1
        return {"output_index": opened.index, "item": item}

    def _inside(self, kind: str, event: Event) -> Iterator[Event]:
        is_text = kind.startswith(_OF_MESSAGES)
        opened = self._open.get(event["item_id"])
        if opened is None and not is_text:
            if not kind.startswith(_OF_FINISHED):
                yield event
            return
        if opened is None:
            item = {"type": "message", "id": event["item_id"], "role": "assistant", "status": "in_progress"}
            yield {"type": _ADDED, **self._begin({**item, "content": []})}
            opened = self._open[event["item_id"]]
        event = {**event, **opened.position}
        if is_text and opened.is_message():
            yield from self._inside_part(kind, event, opened)
        else:
            yield event

    def _inside_part(self, kind: str, event: Event, message: _OpenItem) -> Iterator[Event]:
        index = event.get("content_index") or 0
        part = message.parts.get(index)
        if part is None:
            given = event.get("part") or {}
            part_kind = given.get("type") or ("refusal" if kind.startswith("response.refusal.") else "output_text")
            part = message.parts[index] = _Part(part_kind)
            if kind != f"{_PART}added":
                yield _part_event("added", message, index, _part(part_kind, ""))
        event["content_index"] = index
        if kind.startswith("response.output_text.") and not kind.endswith("annotation.added"):
            event["logprobs"] = event.get("logprobs") or []
        if kind.endswith(".delta"):
            part.text += str(event.get("delta") or "")
        elif kind.endswith("annotation.added"):
            event["annotation_index"], part.annotations = part.annotations, part.annotations + 1
        elif kind == f"{_PART}done":
            part.is_done = True
        elif kind.endswith(".done"):
            part.has_text = True
        yield event

    def _end(self, event: Event) -> Iterator[Event]:
        given = event["item"]
        opened = self._open.pop(given.get("id"), None) or self._same_message(given)
        if opened is None:
            begun = self._begin(given)
            opened = self._open.pop(begun["item"]["id"])
            yield {"type": _ADDED, "output_index": opened.index, "item": _empty(opened.item)}
            yield from _content(opened, given)
        item = complete_item({**given, "id": opened.item["id"]})
        if opened.is_message():
            for index, part in enumerate(item["content"]):
                yield from self._end_part(opened, index, part)
        yield {**event, "output_index": opened.index, "item": item}

    def _same_message(self, item: Item) -> _OpenItem | None:
        """The open message that a finished one continues: the ids of an agent's deltas may differ from it."""
        text = "".join(_text(part) for part in _parts(item)) if item.get("type") == "message" else ""
        for key, opened in self._open.items():
            if text and opened.is_message() and text.startswith(opened.text()):
                return self._open.pop(key)
        return None

    def _end_part(self, message: _OpenItem, index: int, part: Item) -> Iterator[Event]:
        text, kind = _text(part), "refusal" if part.get("type") == "refusal" else "output_text"
        sent = message.parts.get(index) or _Part(kind)
        place = {"item_id": message.item["id"], "content_index": index}
        events: list[Event] = []
        if not sent.has_text and text.startswith(sent.text) and text != sent.text:
            events.append({"type": f"response.{kind}.delta", **place, "delta": text[len(sent.text) :]})
        if not sent.has_text:
            for annotation in (part.get("annotations") or [])[sent.annotations :]:
                events.append({"type": "response.output_text.annotation.added", **place, "annotation": annotation})
            name = "refusal" if kind == "refusal" else "text"
            events.append({"type": f"response.{kind}.done", **place, name: text})
        for event in events:
            yield from self._inside_part(event["type"], {**event, **message.position}, message)
        if not sent.is_done:
            yield _part_event("done", message, index, part)


def complete_item(item: Item) -> dict[str, Any]:
    """Return a finished item with the fields that an agent may leave out: id, status, a message's role and parts."""
    item = _with_id(item)
    if item.get("type") in _EMPTY and item.get("status") in (None, "in_progress"):
        item["status"] = "completed"
    if item.get("type") == "message":
        item |= {"role": item.get("role") or "assistant", "content": _parts(item)}
    return item


def _with_id(item: Item) -> dict[str, Any]:
    return {**item, "id": item.get("id") or f"{item.get('type')}_{uuid.uuid4().hex}"}


def _content(opened: _OpenItem, item: Item) -> Iterator[Event]:
    """The events of what a finished item holds, other than a message's."""
    if item.get("type") == "function_call":
        arguments = item.get("arguments") or ""
        kind = "response.function_call_arguments."
        yield {"type": f"{kind}delta", **opened.position, "delta": arguments}
        yield {"type": f"{kind}done", **opened.position, "name": item.get("name"), "arguments": arguments}
    if item.get("type") == "reasoning":
        kind = "response.reasoning_summary_"
        for index, part in enumerate(item.get("summary") or []):
            place = {**opened.position, "summary_index": index}
            yield {"type": f"{kind}part.added", **place, "part": {**part, "text": ""}}
            yield {"type": f"{kind}text.delta", **place, "delta": part.get("text") or ""}
            yield {"type": f"{kind}text.done", **place, "text": part.get("text") or ""}
            yield {"type": f"{kind}part.done", **place, "part": part}


def _empty(item: Item) -> dict[str, Any]:
    """The item when it begins."""
    lacking = _EMPTY.get(str(item.get("type")))
    return dict(item) if lacking is None else {**item, **lacking, "status": "in_progress"}


def _parts(message: Item) -> list[dict[str, Any]]:
    content = message.get("content") or []
    parts = [{"type": "output_text", "text": content}] if isinstance(content, str) else content
    return [{**_part(str(part.get("type")), ""), **_present(part)} for part in parts]


def _present(part: Item) -> dict[str, Any]:
    return {name: value for name, value in part.items() if value is not None}


def _part(kind: str, text: str) -> dict[str, Any]:
    if kind == "refusal":
        return {"type": kind, "refusal": text}
    return {"type": kind, "text": text, "annotations": []}


def _text(part: Item) -> str:
    return str(part.get("text") or part.get("refusal") or "")


def _part_event(ending: str, message: _OpenItem, index: int, part: Item) -> Event:
    return {"type": f"{_PART}{ending}", **message.position, "content_index": index, "part": part}
