"""What a reply says of some output fields while it is being written, in the formats of DSPy's adapters.

A reader takes a reply piece by piece and gives what each piece adds to the fields' texts, as the adapter will parse
them: the texts so far are always a beginning of what the whole reply means. Text that can't be read yet waits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from xml.parsers import expat

import dspy
from dspy.adapters.chat_adapter import field_header_pattern
from pydantic_core import from_json

from oneturn.plain_json import sound

Piece = tuple[str, str]
"""A field's name, and what its text goes on with."""


class Reader(Protocol):
    """Reads one reply."""

    def read(self, written: str) -> Iterator[Piece]:
        """Take what was written next; give what it adds."""


@dataclass(frozen=True)
class EndingCall:
    """A tool call that ends a run, with the answer as one of its arguments.

    Attributes:
        tool: the tool's name.
        argument: the argument that is the answer.
        field: the output field that holds the calls.
    """

    tool: str
    argument: str
    field: str

    def answer_in(self, calls: Any) -> str | None:
        """The answer in the calls written so far; ``None`` if it isn't there."""
        while isinstance(calls, Mapping) and self.field in calls:
            calls = calls[self.field]
        for call in calls if isinstance(calls, list) else [calls]:
            if isinstance(call, Mapping) and call.get("name") == self.tool and isinstance(call.get("args"), Mapping):
                answer = call["args"].get(self.argument)
                return answer if isinstance(answer, str) else None
        return None


def reader_for(adapter: Any, fields: Iterable[str], ending: EndingCall | None = None) -> Reader | None:
    """The reader of replies that ``adapter`` will parse; ``None`` if it isn't one of DSPy's three formats.

    Args:
        adapter: the adapter that wrote the prompt.
        fields: the fields to tell.
        ending: where the answer is an argument of the call that ends the run: that call.
    """
    if isinstance(adapter, dspy.JSONAdapter):
        return JSONReader(fields, ending)
    if isinstance(adapter, dspy.XMLAdapter):
        return None if ending else XMLReader(fields)
    if isinstance(adapter, dspy.ChatAdapter):
        return ChatCallReader(fields, ending) if ending else ChatReader(fields)
    return None


class _Growing:
    """The text of a field: without the space around it, as the adapters strip it."""

    def __init__(self) -> None:
        self._begun = False
        self._space = ""

    def add(self, text: str) -> str:
        """What can be told of ``text`` now: the space at its end waits for what follows it."""
        text = self._space + text if self._begun else text.lstrip()
        told = text.rstrip()
        self._begun = self._begun or bool(told)
        self._space = text[len(told) :]
        return told


class ChatReader:
    """Sections under ``[[ ## field ## ]]``, one header a line: the format of ``dspy.ChatAdapter``."""

    def __init__(self, fields: Iterable[str]):
        self._texts = {field: _Growing() for field in fields}
        self._open: str | None = None
        self._seen: set[str] = set()
        self._line = ""
        self._begun = False

    def read(self, written: str) -> Iterator[Piece]:
        """Take what was written next; give what it adds."""
        self._line += written
        while (end := _line_end(self._line)) is not None:
            line, self._line = self._line[: end.start()], self._line[end.end() :]
            yield from self._whole_line(line)
        if not self._begun and not _may_be_header(self._line):
            self._begun = True
        if self._begun and not self._line.endswith("\r"):
            line, self._line = self._line, ""
            yield from self._add(line)

    def _whole_line(self, line: str) -> Iterator[Piece]:
        header = None if self._begun else field_header_pattern.match(line.strip())
        self._begun = False
        if header is None:
            yield from self._add(line + "\n")
            return
        name = header.group(1)
        self._open = name if name in self._texts and name not in self._seen else None
        self._seen.add(name)
        if rest := line[header.end() :].strip():
            yield from self._add(rest + "\n")

    def _add(self, text: str) -> Iterator[Piece]:
        if self._open is not None and (told := self._texts[self._open].add(text)):
            yield self._open, told


# The ends of lines as str.splitlines has them, which the adapter uses; a carriage return may be half of one.
_LINE_END = re.compile("\r\n|\r(?=.)|[\n\v\f\x1c\x1d\x1e\x85\u2028\u2029]", re.DOTALL)
_HEADER_START = "[[ ## "


def _line_end(text: str) -> re.Match[str] | None:
    return _LINE_END.search(text)


def _may_be_header(line: str) -> bool:
    start = line.lstrip()[: len(_HEADER_START)]
    return _HEADER_START.startswith(start)


class JSONReader:
    """The fields of a JSON object: the format of ``dspy.JSONAdapter``. Other values than strings tell nothing."""

    def __init__(self, fields: Iterable[str], ending: EndingCall | None = None):
        self._told = dict.fromkeys(fields, "")
        self._ending = ending
        self._written = ""

    def read(self, written: str) -> Iterator[Piece]:
        """Take what was written next; give what it adds."""
        self._written += written
        found = self._object()
        for field, told in self._told.items():
            text = found.get(field)
            if self._ending is not None and field == self._ending.argument:
                text = self._ending.answer_in(found)
            if isinstance(text, str) and text.startswith(told) and text != told:
                self._told[field] = text
                yield field, text[len(told) :]

    def _object(self) -> Mapping[str, Any]:
        start = self._written.find("{")
        if start < 0:
            return {}
        try:
            found = from_json(sound(self._written[start:]), allow_partial="trailing-strings")
        except ValueError:
            return {}
        return found if isinstance(found, Mapping) else {}


class ChatCallReader:
    """Sections, one of which holds the call that ends the run, as JSON."""

    def __init__(self, fields: Iterable[str], ending: EndingCall):
        others = [field for field in fields if field != ending.argument]
        self._sections = ChatReader([*others, ending.field])
        self._calls = JSONReader([ending.argument], ending)
        self._field = ending.field

    def read(self, written: str) -> Iterator[Piece]:
        """Take what was written next; give what it adds."""
        for field, text in self._sections.read(written):
            if field == self._field:
                yield from self._calls.read(text)
            else:
                yield field, text


class NativeCallReader:
    """The call that ends the run where the LM has tool calls of its own: its arguments are a JSON object."""

    def __init__(self, ending: EndingCall):
        self._ending = ending
        self._arguments: dict[int, JSONReader] = {}

    def read(self, delta: Any) -> Iterator[Piece]:
        """Take the next part of a tool call (an ``lm15`` delta); give what it adds."""
        if delta.name == self._ending.tool:
            self._arguments[delta.part_index] = JSONReader([self._ending.argument])
        if reader := self._arguments.get(delta.part_index):
            yield from reader.read(delta.input)


class XMLReader:
    """The fields as elements: the format of ``dspy.XMLAdapter``."""

    def __init__(self, fields: Iterable[str]):
        self._texts = {field: _Growing() for field in fields}
        self._open: list[str] = []
        self._seen: set[str] = set()
        self._pieces: list[Piece] = []
        self._parser = expat.ParserCreate()
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text
        self._parser.Parse("<reply>")
        self._broken = False

    def read(self, written: str) -> Iterator[Piece]:
        """Take what was written next; give what it adds."""
        if self._broken:
            return
        try:
            self._parser.Parse(sound(written))
        except expat.ExpatError:
            self._broken = True
        pieces, self._pieces = self._pieces, []
        yield from pieces

    def _start(self, name: str, attributes: Mapping[str, str]) -> None:
        self._open.append(name)
        if len(self._open) == 2 and name in self._seen:
            self._broken = True  # a list: none of our texts
        if len(self._open) == 2:
            self._seen.add(name)

    def _end(self, name: str) -> None:
        self._open.pop()

    def _text(self, text: str) -> None:
        if len(self._open) == 2 and self._open[1] in self._texts and (told := self._texts[self._open[1]].add(text)):
            self._pieces.append((self._open[1], told))
