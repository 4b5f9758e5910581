"""Checks of texts sent in deltas: messages, refusals, arguments, summaries; and of annotations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from oneturn.conformance.events import Event, integer, kind, mapping, objects, same
from oneturn.conformance.items import Item
from oneturn.conformance.rules import Findings, format_value


@dataclass(frozen=True)
class Channel:
    """A kind of text that is sent in deltas.

    Attributes:
        prefix: the prefix of its events, ``<prefix>.delta`` and ``<prefix>.done``.
        value: the field of the ``.done`` event, of the part and of the item that holds the complete text.
        rule: the rule that the deltas add up to the text.
        part_type: the ``type`` of its parts; ``None`` if the text is a field of the item.
        index: the field that numbers the parts.
        part: the prefix of the parts' events, ``<part>.added`` and ``<part>.done``.
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
_FIELD_CHANNELS = (
    Channel("response.function_call_arguments", "arguments", "arguments-add-up"),
    Channel("response.mcp_call_arguments", "arguments", "arguments-add-up"),
    Channel("response.custom_tool_call_input", "input", "input-adds-up"),
    Channel("response.code_interpreter_call_code", "code", "input-adds-up"),
)
_PART_CHANNELS = (TEXT, REFUSAL, _REASONING, _SUMMARY)
_CHANNELS = {channel.prefix: channel for channel in (*_PART_CHANNELS, *_FIELD_CHANNELS)}
_ANNOTATION = "response.output_text.annotation.added"


@dataclass
class _Part:
    """The events of one text."""

    initial: str = ""
    added: int | None = None
    deltas: list[str] = field(default_factory=list)
    text: Any = None
    text_done_at: int | None = None
    done: Mapping[str, Any] | None = None
    done_at: int | None = None
    annotations: list[Any] = field(default_factory=list)

    @property
    def streamed(self) -> str:
        return self.initial + "".join(self.deltas)


def check_texts(items: Sequence[Item], findings: Findings) -> None:
    """Check that every text is sent once, in order, and that its deltas add up."""
    for item in items:
        _TextChecker(item, findings).check()


class _TextChecker:
    def __init__(self, item: Item, findings: Findings):
        self._item = item
        self._findings = findings
        self._parts: dict[tuple[str, Any], _Part] = {}

    def check(self) -> None:
        for position, event in self._item.events:
            self._read(position, event)
        for (name, index), part in self._parts.items():
            channel = _CHANNELS[name]
            self._check_complete(channel, index, part)
            self._check_sum(channel, index, part)
        if self._item.done is not None:
            self._check_unstreamed(self._item.done)

    def _read(self, position: int, event: Event) -> None:
        name = kind(event)
        prefix, _, suffix = name.rpartition(".")
        prefix = _REASONING.prefix if prefix == "response.reasoning" else prefix  # the specification has both names
        if name == _ANNOTATION:
            self._read_annotation(position, event)
        elif prefix in _CHANNELS and suffix in ("delta", "done"):
            self._read_text(_CHANNELS[prefix], suffix, position, event)
        else:
            self._read_part(prefix, suffix, position, event)

    def _read_text(self, channel: Channel, suffix: str, position: int, event: Event) -> None:
        part = self._part(channel, event, position)
        if channel.part_type and part.added is None:
            self._findings.add("part-not-added", f"{kind(event)} comes before its part was added.", position)
        if part.text_done_at is not None:
            self._findings.add("delta-after-done", f"{kind(event)} comes after the text was done.", position)
        elif part.done_at is not None:
            self._findings.add("part-order", f"{kind(event)} comes after its part was done.", position)
        if suffix == "delta":
            part.deltas.append(str(event.get("delta") or ""))
        elif part.text_done_at is None:
            part.text, part.text_done_at = event.get(channel.value), position

    def _read_part(self, prefix: str, suffix: str, position: int, event: Event) -> None:
        fields = mapping(event.get("part"))
        channel = next((c for c in _PART_CHANNELS if (c.part, c.part_type) == (prefix, fields.get("type"))), None)
        if channel is None:
            return
        part = self._part(channel, event, position)
        if suffix == "added":
            if part.added is not None or part.done_at is not None:
                self._findings.add("part-order", f"The {channel.part_type} part is added twice, or too late.", position)
            part.added, part.initial = position, str(fields.get(channel.value) or "")
        elif suffix == "done":
            if part.done_at is not None:
                self._findings.add("part-order", f"The {channel.part_type} part is done twice.", position)
            if part.added is None:
                self._findings.add(
                    "part-not-added", f"A {channel.part_type} part is done but was never added.", position
                )
            part.done, part.done_at = fields, position

    def _read_annotation(self, position: int, event: Event) -> None:
        part = self._part(TEXT, event, position)
        number = event.get("annotation_index")
        if part.added is None:
            self._findings.add("part-not-added", "An annotation comes before its part was added.", position)
        elif number != len(part.annotations):
            message = f"annotation_index is {number}, expected {len(part.annotations)}."
            self._findings.add("annotations", message, position)
        if part.done_at is not None:
            self._findings.add("part-order", "An annotation comes after its part was done.", position)
        part.annotations.append(event.get("annotation"))

    def _part(self, channel: Channel, event: Event, position: int) -> _Part:
        index = event.get(channel.index) if channel.part_type else None
        key = channel.prefix, index if integer(index) else 0
        if key not in self._parts:
            part = self._parts[key] = _Part()
            if channel.part_type is None:
                part.initial = str((self._item.added or {}).get(channel.value) or "")
        return self._parts[key]

    def _check_complete(self, channel: Channel, index: Any, part: _Part) -> None:
        if part.deltas and part.text_done_at is None:
            self._findings.add("text-done-missing", f"{self._item} has {channel.prefix}.delta but no .done.")
        if part.added is not None and part.done_at is None and self._item.done is not None:
            self._findings.add("part-not-done", f"Part {index} of {self._item} was added and never done.", part.added)

    def _check_sum(self, channel: Channel, index: Any, part: _Part) -> None:
        streamed = part.streamed
        for source, text, position in self._complete_texts(channel, index, part):
            if text != streamed and (part.deltas or channel.part_type or part.initial not in ("", text)):
                if not part.deltas and channel in (TEXT, REFUSAL) and not part.initial:
                    self._findings.add("text-not-streamed", f"The text of {self._item} has no delta.", position)
                else:
                    message = (
                        f"{self._item}: the deltas give {format_value(streamed)}, {source} has {format_value(text)}."
                    )
                    self._findings.add(channel.rule, message, position)
        if channel is TEXT:
            self._check_annotations(index, part)

    def _complete_texts(self, channel: Channel, index: Any, part: _Part) -> list[tuple[str, Any, int | None]]:
        """Return the complete text from the ``.done`` event, the done part and the done item, as far as they exist."""
        texts: list[tuple[str, Any, int | None]] = []
        if part.text_done_at is not None:
            texts.append((f"{channel.prefix}.done", part.text, part.text_done_at))
        if part.done is not None:
            texts.append(("the done part", part.done.get(channel.value), part.done_at))
        if self._item.done is not None:
            texts.append(("the done item", self._final(channel, index).get(channel.value), self._item.end))
        return texts

    def _final(self, channel: Channel, index: Any) -> Mapping[str, Any]:
        """Return the part of the done item, or the item if the text is one of its fields."""
        done = self._item.done or {}
        if channel.part_type is None:
            return done
        parts = objects(done.get(channel.holder))
        final = parts[index] if 0 <= index < len(parts) else {}
        return final if final.get("type") == channel.part_type else {}

    def _check_annotations(self, index: Any, part: _Part) -> None:
        sources = [("the done part", part.done, part.done_at)] if part.done is not None else []
        if self._item.done is not None:
            sources.append(("the done item", self._final(TEXT, index), self._item.end))
        for source, value, position in sources:
            annotations = (value or {}).get("annotations") or []
            if same(annotations, part.annotations):
                continue
            rule = "annotations" if part.annotations else "annotation-not-streamed"
            counts = f"{len(part.annotations)} annotations were sent, {source} has {len(annotations)}"
            self._findings.add(rule, f"{self._item}: {counts}, or they differ.", position)

    def _check_unstreamed(self, done: Mapping[str, Any]) -> None:
        """Check the parts of a done message that have no events."""
        if done.get("type") != "message":
            return
        for index, final in enumerate(objects(done.get("content"))):
            channel = next((c for c in (TEXT, REFUSAL) if c.part_type == final.get("type")), None)
            if channel is None or (channel.prefix, index) in self._parts:
                continue
            if final.get(channel.value):
                message = f"The text of {self._item} has no delta."
                self._findings.add("text-not-streamed", message, self._item.end)
            self._findings.add("part-not-added", f"Part {index} of {self._item} was never added.", self._item.end)
            if channel is TEXT:
                self._check_annotations(index, _Part())
