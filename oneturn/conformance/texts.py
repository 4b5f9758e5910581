"""Texts that come in pieces: messages, refusals, arguments, summaries; and the annotations of messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from oneturn.conformance.events import Event, integer, kind, mapping, objects, same
from oneturn.conformance.items import Item
from oneturn.conformance.rules import Findings, shown


@dataclass(frozen=True)
class Channel:
    """A kind of text that comes in deltas.

    Attributes:
        prefix: its events are ``<prefix>.delta`` and ``<prefix>.done``.
        value: the field of the ``.done`` event, of the part and of the item that holds the whole.
        rule: the rule by which it adds up.
        part_type: the ``type`` of its parts; ``None`` if the text is a field of the item itself.
        index: the field that numbers the parts.
        part: the parts' events are ``<part>.added`` and ``<part>.done``.
        holder: the item's list of parts.
    """

    prefix: str
    value: str
    rule: str
    part_type: str | None = None
    index: str = "content_index"
    part: str = "response.content_part"
    holder: str = "content"


TEXT = Channel("response.output_text", "text", "text-adds-up", "output_text")
REFUSAL = Channel("response.refusal", "refusal", "refusal-adds-up", "refusal")
_REASONING = Channel("response.reasoning_text", "text", "reasoning-adds-up", "reasoning_text")
_SUMMARY = Channel(
    "response.reasoning_summary_text",
    "text",
    "summary-adds-up",
    "summary_text",
    "summary_index",
    "response.reasoning_summary_part",
    "summary",
)
_FIELDS = (
    Channel("response.function_call_arguments", "arguments", "arguments-add-up"),
    Channel("response.mcp_call_arguments", "arguments", "arguments-add-up"),
    Channel("response.custom_tool_call_input", "input", "input-adds-up"),
    Channel("response.code_interpreter_call_code", "code", "input-adds-up"),
)
_IN_PARTS = (TEXT, REFUSAL, _REASONING, _SUMMARY)
_CHANNELS = {channel.prefix: channel for channel in (*_IN_PARTS, *_FIELDS)}
_ANNOTATION = "response.output_text.annotation.added"


@dataclass
class _Part:
    """What the stream told of one text."""

    begun: str = ""
    added: int | None = None
    deltas: list[str] = field(default_factory=list)
    whole: Any = None
    told_whole: int | None = None
    done: Mapping[str, Any] | None = None
    done_at: int | None = None
    annotations: list[Any] = field(default_factory=list)

    @property
    def streamed(self) -> str:
        return self.begun + "".join(self.deltas)


def check_texts(items: Sequence[Item], found: Findings) -> None:
    """That every text is told once, in order, and adds up."""
    for item in items:
        _Reader(item, found).check()


class _Reader:
    def __init__(self, item: Item, found: Findings):
        self._item = item
        self._found = found
        self._parts: dict[tuple[str, Any], _Part] = {}

    def check(self) -> None:
        for place, event in self._item.events:
            self._read(place, event)
        for (name, index), part in self._parts.items():
            channel = _CHANNELS[name]
            self._check_told(channel, index, part)
            self._check_sum(channel, index, part)
        if self._item.done is not None:
            self._check_untold(self._item.done)

    def _read(self, place: int, event: Event) -> None:
        name = kind(event)
        prefix, _, what = name.rpartition(".")
        if name == _ANNOTATION:
            self._read_annotation(place, event)
        elif prefix in _CHANNELS and what in ("delta", "done"):
            self._read_text(_CHANNELS[prefix], what, place, event)
        else:
            self._read_part(prefix, what, place, event)

    def _read_text(self, channel: Channel, what: str, place: int, event: Event) -> None:
        part = self._part(channel, event, place)
        if channel.part_type and part.added is None:
            self._found.add("part-not-added", f"{kind(event)} comes before its part was added.", place)
        if part.told_whole is not None:
            self._found.add("delta-after-done", f"{kind(event)} comes after the text was done.", place)
        elif part.done_at is not None:
            self._found.add("part-order", f"{kind(event)} comes after its part was done.", place)
        if what == "delta":
            part.deltas.append(str(event.get("delta") or ""))
        elif part.told_whole is None:
            part.whole, part.told_whole = event.get(channel.value), place

    def _read_part(self, prefix: str, what: str, place: int, event: Event) -> None:
        told = mapping(event.get("part"))
        channel = next((c for c in _IN_PARTS if (c.part, c.part_type) == (prefix, told.get("type"))), None)
        if channel is None:
            return
        part = self._part(channel, event, place)
        if what == "added":
            if part.added is not None or part.done_at is not None:
                self._found.add("part-order", f"The {channel.part_type} part is added twice, or late.", place)
            part.added, part.begun = place, str(told.get(channel.value) or "")
        elif what == "done":
            if part.done_at is not None:
                self._found.add("part-order", f"The {channel.part_type} part is done twice.", place)
            if part.added is None:
                self._found.add("part-not-added", f"A {channel.part_type} part is done that wasn't added.", place)
            part.done, part.done_at = told, place

    def _read_annotation(self, place: int, event: Event) -> None:
        part = self._part(TEXT, event, place)
        number = event.get("annotation_index")
        if part.added is None:
            self._found.add("part-not-added", "An annotation comes before its part was added.", place)
        elif number != len(part.annotations):
            message = f"annotation_index is {number}, expected {len(part.annotations)}."
            self._found.add("annotations", message, place)
        if part.done_at is not None:
            self._found.add("part-order", "An annotation comes after its part was done.", place)
        part.annotations.append(event.get("annotation"))

    def _part(self, channel: Channel, event: Event, place: int) -> _Part:
        index = event.get(channel.index) if channel.part_type else None
        key = channel.prefix, index if integer(index) else 0
        if key not in self._parts:
            part = self._parts[key] = _Part()
            if channel.part_type is None:
                part.begun = str((self._item.added or {}).get(channel.value) or "")
        return self._parts[key]

    def _check_told(self, channel: Channel, index: Any, part: _Part) -> None:
        if part.deltas and part.told_whole is None:
            self._found.add("text-done-missing", f"{self._item} has {channel.prefix}.delta, and no .done.")
        if part.added is not None and part.done_at is None and self._item.done is not None:
            self._found.add("part-not-done", f"Part {index} of {self._item} was added and never done.", part.added)

    def _check_sum(self, channel: Channel, index: Any, part: _Part) -> None:
        streamed = part.streamed
        for what, whole, place in self._wholes(channel, index, part):
            if whole != streamed and (part.deltas or channel.part_type or part.begun not in ("", whole)):
                if not part.deltas and channel in (TEXT, REFUSAL) and not part.begun:
                    self._found.add("text-not-streamed", f"The text of {self._item} came without a delta.", place)
                else:
                    message = f"{self._item}: the deltas give {shown(streamed)}, {what} has {shown(whole)}."
                    self._found.add(channel.rule, message, place)
        if channel is TEXT:
            self._check_annotations(index, part)

    def _wholes(self, channel: Channel, index: Any, part: _Part) -> list[tuple[str, Any, int | None]]:
        """Where the whole text was told: in the ``.done`` event, in the part, in the item."""
        wholes: list[tuple[str, Any, int | None]] = []
        if part.told_whole is not None:
            wholes.append((f"{channel.prefix}.done", part.whole, part.told_whole))
        if part.done is not None:
            wholes.append(("the done part", part.done.get(channel.value), part.done_at))
        if self._item.done is not None:
            wholes.append(("the done item", self._final(channel, index).get(channel.value), self._item.ended))
        return wholes

    def _final(self, channel: Channel, index: Any) -> Mapping[str, Any]:
        """The part of the done item; the item itself where the text is a field of it."""
        done = self._item.done or {}
        if channel.part_type is None:
            return done
        parts = objects(done.get(channel.holder))
        final = parts[index] if 0 <= index < len(parts) else {}
        return final if final.get("type") == channel.part_type else {}

    def _check_annotations(self, index: Any, part: _Part) -> None:
        wholes = [("the done part", part.done, part.done_at)] if part.done is not None else []
        if self._item.done is not None:
            wholes.append(("the done item", self._final(TEXT, index), self._item.ended))
        for what, whole, place in wholes:
            told = (whole or {}).get("annotations") or []
            if same(told, part.annotations):
                continue
            rule = "annotations" if part.annotations else "annotations-not-told"
            counts = f"{len(part.annotations)} annotations were told, {what} has {len(told)}"
            self._found.add(rule, f"{self._item}: {counts}, or others.", place)

    def _check_untold(self, done: Mapping[str, Any]) -> None:
        """Parts of a done message of which the stream told nothing."""
        if done.get("type") != "message":
            return
        for index, final in enumerate(objects(done.get("content"))):
            channel = next((c for c in (TEXT, REFUSAL) if c.part_type == final.get("type")), None)
            if channel is None or (channel.prefix, index) in self._parts:
                continue
            if final.get(channel.value):
                message = f"The text of {self._item} came without a delta."
                self._found.add("text-not-streamed", message, self._item.ended)
            self._found.add("part-not-added", f"Part {index} of {self._item} was never added.", self._item.ended)
            if channel is TEXT:
                self._check_annotations(index, _Part())
