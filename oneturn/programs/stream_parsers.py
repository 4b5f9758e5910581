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

from oneturn.core.serialization import replace_surrogates
from oneturn.core.steps import AnswerDelta, Thought
from oneturn.tools.registry import FINISH

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
            found = from_json(replace_surrogates(self._written[start:]), allow_partial="trailing-strings")
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
            self._parser.Parse(replace_surrogates(written))
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


@dataclass(frozen=True)
class AnswerPiece:
    """A piece of the answering field of one LM reply. Replies are numbered in the order in which they begin."""

    reply: int
    text: str


class AnswerText:
    """Numbers the attempts of an answer: each reply that writes it starts it over, the last one counts."""

    def __init__(self) -> None:
        self._attempt = 0
        self._reply = 0
        self._told: list[str] = []

    def add(self, piece: AnswerPiece) -> Iterator[AnswerDelta]:
        """Tell a piece; one of a reply that another has overtaken (in a parallel thread) is passed over."""
        if piece.reply < self._reply:
            return
        if piece.reply > self._reply:
            self._start_over()
            self._reply = piece.reply
        yield self._tell(piece.text)

    def finish(self, answer: str) -> Iterator[AnswerDelta]:
        """Tell what of the final ``answer`` hasn't been told: the rest, or all of it if something else was told."""
        told = "".join(self._told)
        if not answer.startswith(told):
            self._start_over()
            yield self._tell(answer)
        elif rest := answer[len(told) :]:
            yield self._tell(rest)

    def _start_over(self) -> None:
        self._attempt += bool(self._told)
        self._told = []

    def _tell(self, text: str) -> AnswerDelta:
        self._told.append(text)
        return AnswerDelta(text, self._attempt)


class StepReader:
    """Reads one step's JSON piece by piece: its thought once that is whole, its answer as it grows.

    The answer is the string argument ``answer_field`` of a ``finish`` call. Text that isn't JSON tells
    nothing; the run tells it when the step is parsed.

    Args:
        answer_field: the output field that is the answer, if there is one.
        attempt: which attempt at the answer this is.
        thoughts: whether steps have thoughts; one that an LM writes all the same isn't told.

    Attributes:
        thought_told: whether the thought has been given.
        answer_told: the part of the answer that has been given.
    """

    def __init__(self, answer_field: str | None, attempt: int, thoughts: bool = True):
        self._answer_field = answer_field
        self._thoughts = thoughts
        self._attempt = attempt
        self._written = ""
        self.thought_told = False
        self.answer_told = ""

    def read(self, piece: str) -> Iterator[Thought | AnswerDelta]:
        """Take the next piece of text; give what it completes."""
        self._written += piece
        try:
            step = from_json(replace_surrogates(self._written), allow_partial="trailing-strings")
        except ValueError:
            return
        if not isinstance(step, Mapping) or not isinstance(step.get("tool_call"), Mapping):
            return
        if self._thoughts and not self.thought_told and step.get("thought"):
            self.thought_told = True
            yield Thought(str(step["thought"]))
        answer = self._answer(step["tool_call"])
        if new := answer[len(self.answer_told) :]:
            self.answer_told += new
            yield AnswerDelta(new, self._attempt)

    def _answer(self, call: Mapping[str, Any]) -> str:
        args = call.get("args")
        if call.get("name") != FINISH or not isinstance(args, Mapping):
            return ""
        answer = args.get(self._answer_field) if self._answer_field is not None else None
        return answer if isinstance(answer, str) else ""
