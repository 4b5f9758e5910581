"""Incremental parsers of LM replies in the formats of DSPy's adapters.

A reader takes a reply piece by piece and yields what each piece adds to the fields' texts. The text of a field so far
is always a prefix of the text that the adapter parses from the complete reply. Ambiguous text is buffered.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from xml.parsers import expat

import dspy
from pydantic_core import from_json

from oneturn.core._dspy import field_header_pattern
from oneturn.core.serialization import replace_surrogates
from oneturn.core.steps import AnswerDelta

Piece = tuple[str, str]
"""A field's name, and the text to append to it."""


class Reader(Protocol):
    """An incremental parser of one reply."""

    def read(self, text: str) -> Iterator[Piece]:
        """Take the next text of the reply; yield what it adds."""


@dataclass(frozen=True)
class EndingCall:
    """A tool call that ends a run and has the answer as an argument.

    Attributes:
        tool: the tool's name.
        argument: the argument that holds the answer.
        field: the output field that holds the calls.
    """

    tool: str
    argument: str
    field: str

    def answer_in(self, calls: Any) -> str | None:
        """Return the answer in the partial calls; ``None`` if it isn't there yet."""
        while isinstance(calls, Mapping) and self.field in calls:
            calls = calls[self.field]
        for call in calls if isinstance(calls, list) else [calls]:
            if isinstance(call, Mapping) and call.get("name") == self.tool and isinstance(call.get("args"), Mapping):
                answer = call["args"].get(self.argument)
                return answer if isinstance(answer, str) else None
        return None


def reader_for(adapter: Any, fields: Iterable[str], ending: EndingCall | None = None) -> Reader | None:
    """Return a reader for replies to ``adapter``; ``None`` if it isn't one of DSPy's chat, JSON and XML adapters.

    Args:
        adapter: the adapter that wrote the prompt.
        fields: the fields to read.
        ending: the call that ends the run, if the answer is one of its arguments.
    """
    if isinstance(adapter, dspy.JSONAdapter):
        return JSONReader(fields, ending)
    if isinstance(adapter, dspy.XMLAdapter):
        return None if ending else XMLReader(fields)
    if isinstance(adapter, dspy.ChatAdapter):
        return ChatCallReader(fields, ending) if ending else ChatReader(fields)
    return None


class _StrippedText:
    """The growing text of a field, stripped of surrounding whitespace as the adapters do."""

    def __init__(self) -> None:
        self._started = False
        self._whitespace = ""

    def add(self, text: str) -> str:
        """Return the part of ``text`` that is final; whitespace at its end is held back until more text follows."""
        text = self._whitespace + text if self._started else text.lstrip()
        stripped = text.rstrip()
        self._started = self._started or bool(stripped)
        self._whitespace = text[len(stripped) :]
        return stripped


class ChatReader:
    """Reads sections under ``[[ ## field ## ]]`` headers: the format of ``dspy.ChatAdapter``."""

    def __init__(self, fields: Iterable[str]):
        self._texts = {field: _StrippedText() for field in fields}
        self._open: str | None = None
        self._seen: set[str] = set()
        self._line = ""
        self._line_started = False

    def read(self, text: str) -> Iterator[Piece]:
        """Take the next text of the reply; yield what it adds."""
        self._line += text
        while (end := _line_end(self._line)) is not None:
            line, self._line = self._line[: end.start()], self._line[end.end() :]
            yield from self._complete_line(line)
        if not self._line_started and not _may_be_header(self._line):
            self._line_started = True
        if self._line_started and not self._line.endswith("\r"):
            line, self._line = self._line, ""
            yield from self._add(line)

    def _complete_line(self, line: str) -> Iterator[Piece]:
        header = None if self._line_started else field_header_pattern.match(line.strip())
        self._line_started = False
        if header is None:
            yield from self._add(line + "\n")
            return
        name = header.group(1)
        self._open = name if name in self._texts and name not in self._seen else None
        self._seen.add(name)
        if rest := line[header.end() :].strip():
            yield from self._add(rest + "\n")

    def _add(self, text: str) -> Iterator[Piece]:
        if self._open is not None and (added := self._texts[self._open].add(text)):
            yield self._open, added


# The line ends of str.splitlines, which the adapter uses; a carriage return at the end may be half of one.
_LINE_END = re.compile("\r\n|\r(?=.)|[\n\v\f\x1c\x1d\x1e\x85\u2028\u2029]", re.DOTALL)
_HEADER_START = "[[ ## "


def _line_end(text: str) -> re.Match[str] | None:
    return _LINE_END.search(text)


def _may_be_header(line: str) -> bool:
    start = line.lstrip()[: len(_HEADER_START)]
    return _HEADER_START.startswith(start)


class JSONReader:
    """Reads the string fields of a JSON object: the format of ``dspy.JSONAdapter``."""

    def __init__(self, fields: Iterable[str], ending: EndingCall | None = None):
        self._emitted = dict.fromkeys(fields, "")
        self._ending = ending
        self._reply = ""
        self.values: Mapping[str, Any] = {}
        """The object so far, its fields in the order written."""

    def read(self, text: str) -> Iterator[Piece]:
        """Take the next text of the reply; yield what it adds."""
        self._reply += text
        values = self.values = self._parse()
        for field, emitted in self._emitted.items():
            value = values.get(field)
            if self._ending is not None and field == self._ending.argument:
                value = self._ending.answer_in(values)
            if isinstance(value, str) and value.startswith(emitted) and value != emitted:
                self._emitted[field] = value
                yield field, value[len(emitted) :]

    def _parse(self) -> Mapping[str, Any]:
        start = self._reply.find("{")
        if start < 0:
            return {}
        try:
            values = from_json(replace_surrogates(self._reply[start:]), allow_partial="trailing-strings")
        except ValueError:
            return {}
        return values if isinstance(values, Mapping) else {}


class ChatCallReader:
    """Reads sections of which one holds the call that ends the run, as JSON."""

    def __init__(self, fields: Iterable[str], ending: EndingCall):
        others = [field for field in fields if field != ending.argument]
        self._sections = ChatReader([*others, ending.field])
        self._calls = JSONReader([ending.argument], ending)
        self._field = ending.field

    def read(self, text: str) -> Iterator[Piece]:
        """Take the next text of the reply; yield what it adds."""
        for field, added in self._sections.read(text):
            if field == self._field:
                yield from self._calls.read(added)
            else:
                yield field, added


class NativeCallReader:
    """Reads the call that ends the run from native tool calls, whose arguments are a JSON object."""

    def __init__(self, ending: EndingCall):
        self._ending = ending
        self._arguments: dict[int, JSONReader] = {}
        self.arguments: Mapping[str, Any] = {}
        """The arguments so far of the call that was read last, in the order written."""

    def read(self, delta: Any) -> Iterator[Piece]:
        """Take the next part of a tool call (an ``lm15`` delta); yield what it adds."""
        if delta.name == self._ending.tool:
            self._arguments[delta.part_index] = JSONReader([self._ending.argument])
        if reader := self._arguments.get(delta.part_index):
            for piece in reader.read(delta.input):
                self.arguments = reader.values
                yield piece


class XMLReader:
    """Reads fields as XML elements: the format of ``dspy.XMLAdapter``."""

    def __init__(self, fields: Iterable[str]):
        self._texts = {field: _StrippedText() for field in fields}
        self._open: list[str] = []
        self._seen: set[str] = set()
        self._pieces: list[Piece] = []
        self._parser = expat.ParserCreate()
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text
        self._parser.Parse("<reply>")
        self._failed = False

    def read(self, text: str) -> Iterator[Piece]:
        """Take the next text of the reply; yield what it adds."""
        if self._failed:
            return
        try:
            self._parser.Parse(replace_surrogates(text))
        except expat.ExpatError:
            self._failed = True
        pieces, self._pieces = self._pieces, []
        yield from pieces

    def _start(self, name: str, attributes: Mapping[str, str]) -> None:
        self._open.append(name)
        if len(self._open) == 2 and name in self._seen:
            self._failed = True  # repeated elements are a list, not a text field
        if len(self._open) == 2:
            self._seen.add(name)

    def _end(self, name: str) -> None:
        self._open.pop()

    def _text(self, text: str) -> None:
        if len(self._open) == 2 and self._open[1] in self._texts and (added := self._texts[self._open[1]].add(text)):
            self._pieces.append((self._open[1], added))


@dataclass(frozen=True)
class AnswerPiece:
    """A piece of the answer field of one LM reply. Replies are numbered in the order in which they start.

    ``checked`` is that of an ``AnswerDelta``.
    """

    reply: int
    text: str
    checked: bool = True


class AnswerText:
    """Numbers the attempts at an answer: each reply with an answer starts a new one, and the last one counts."""

    def __init__(self) -> None:
        self._attempt = 0
        self._reply = 0
        self._emitted: list[str] = []

    @property
    def begun(self) -> bool:
        """Whether the current attempt has text."""
        return bool(self._emitted)

    def add(self, piece: AnswerPiece) -> Iterator[AnswerDelta]:
        """Emit a piece; pieces of an earlier reply, written in a parallel thread, are skipped."""
        if piece.reply < self._reply:
            return
        if piece.reply > self._reply:
            self._start_over()
            self._reply = piece.reply
        yield self._emit(piece.text, piece.checked)

    def finish(self, answer: str) -> Iterator[AnswerDelta]:
        """Emit the rest of the final ``answer``; all of it, as a new attempt, if the emitted text differs."""
        emitted = "".join(self._emitted)
        if not answer.startswith(emitted):
            self._start_over()
            yield self._emit(answer)
        elif rest := answer[len(emitted) :]:
            yield self._emit(rest)

    def _start_over(self) -> None:
        self._attempt += bool(self._emitted)
        self._emitted = []

    def _emit(self, text: str, checked: bool = True) -> AnswerDelta:
        self._emitted.append(text)
        return AnswerDelta(text, self._attempt, checked)
