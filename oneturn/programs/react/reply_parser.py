"""Parse an LM's text as one step, whatever is written around it.

LMs that no grammar constrains write prose, fences or their reasoning before the JSON, arguments as JSON text, Python
literals, OpenAI's names, or several steps at once. The first step of a reply counts: what follows it was written
without the result of its call.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import json_repair
from pydantic_core import from_json

from oneturn.core.serialization import plain, replace_surrogates
from oneturn.lm.free_text import BEFORE_JSON
from oneturn.programs.react.call_formats import first_marked_call
from oneturn.programs.react.function_names import ARGUMENT_KEYS, FunctionNames
from oneturn.programs.react.reply_text import without_thinking

_NAME_KEYS = ("name", "tool_name", "next_tool_name", "tool", "action", "function")
_CALL_KEYS = ("tool_call", "tool_calls", "function_call")
_BESIDE_ARGUMENTS = frozenset({*_NAME_KEYS, "type", "id", "thought", "index"})
_MAX_CANDIDATES = 100
_MAX_REPAIRS = 5  # of open braces: each repair reads the rest of the reply
_MAX_BRACKETS = 1000
_CALL_BLOCKS = ("tool_code", "tool_call")  # Gemma's and Gemini's
_TAG = re.compile(r"<[^<>]{1,60}>|\[/?[A-Z_]+\]")
_ESCAPE = re.compile(r"\\(?P<known>[\"'\\/nrt]|u[0-9a-fA-F]{4})?")
_FENCE = re.compile(r"\s*```\w*\s*\Z")
_ANNOUNCED = re.compile(
    rf"(?:(?:\A|(?<=\n))[ \t*_#>-]*(?:Final )?[*_]*{BEFORE_JSON.removesuffix(':')}[*_]*:[\s*_]*)+\Z", re.IGNORECASE
)
STEP = re.compile(r'\{\s*"(?:tool_call|thought)"\s*:')
_DECODER = json.JSONDecoder(strict=False)  # LMs write line breaks inside strings


@dataclass(frozen=True)
class ParsedCall:
    """A tool call in a reply."""

    name: str
    args: dict[str, Any]


@dataclass(frozen=True)
class ParsedReply:
    """The first step of a reply.

    Attributes:
        call: the step's call.
        parallel: the further calls of its ``parallel_calls``.
        thought: its thought; empty if it has none.
        complete: whether the step's JSON is closed; if not, its end was made up by the parser.
        before: the text before the step.
    """

    call: ParsedCall
    parallel: tuple[ParsedCall, ...] = field(default=())
    thought: str = ""
    complete: bool = True
    before: str = ""


def parse_reply(text: str, names: FunctionNames | None = None, examples: bool = True) -> ParsedReply:
    """Return the first step in an LM's reply.

    Args:
        text: the reply.
        names: the tools. With them, a call is also read from ``{"<tool>": {…}}``, from flat arguments and from Python.
        examples: whether to read a call in the middle of prose, or in a code block beside prose. A reply that may be an
            answer shows such a call, and doesn't make it.

    Raises:
        ValueError: the reply has no step.
    """
    visible = without_thinking(text)
    marked = first_marked_call(visible, names, _object_at)
    if marked is not None and not examples and _is_in_block_beside_prose(visible, marked.start):
        marked = None
    for start, value, complete in _objects(visible):
        if marked is not None and marked.start < start:
            break
        step = _to_step(value, complete, names)
        if step is not None and (examples or not _is_example(visible, start)):
            return replace(step, before=text_before(visible, start))
    if marked is not None:
        call = _parsed_call(marked.name, marked.args, names)
        return ParsedReply(call, complete=marked.complete, before=text_before(visible, marked.start))
    raise ValueError("the reply has no JSON object that calls a tool")


def _is_example(text: str, start: int) -> bool:
    """Whether the object at ``start`` stands in the middle of prose, or in a code block beside prose."""
    if _is_in_block_beside_prose(text, start):
        return True
    before, after = text[:start].rstrip(), _TAG.sub("", text[_end_of_object(text, start) or len(text) :]).strip()
    return bool(_TAG.sub("", before)) and not before.endswith((">", "]", "`")) and bool(re.match(r"[^{}\[\]`]", after))


def _is_in_block_beside_prose(text: str, start: int) -> bool:
    fence = text.rfind("```", 0, start + 3)  # a call in Python begins with its fence
    if fence < 0 or text.count("```", 0, fence) % 2 or text.startswith(_CALL_BLOCKS, fence + 3):
        return False
    before, after = text[:fence], text[fence + 3 :].partition("```")[2]
    return not before.rstrip().endswith((">", "]")) and any(_TAG.sub("", part).strip() for part in (before, after))


def split_reply(reply: str) -> tuple[str, str]:
    """Split a reply that begins with free text into the text and the step, which may be incomplete.

    The text is no step, whatever calls it mentions. A reply in which no step begins is a step as a whole.
    """
    step = STEP.search(reply)
    return ("", reply) if step is None else (text_before(reply, step.start()), reply[step.start() :])


def text_before(text: str, start: int) -> str:
    """Return the text of a reply before its step, without the fence that the step stands in, and what announces it."""
    return _ANNOUNCED.sub("", _FENCE.sub("", text[:start])).strip()


def parse_object(text: str) -> dict[str, Any] | None:
    """Return the first JSON object of a reply; ``None`` if it has none."""
    for _, value, _ in _objects(without_thinking(text)):
        return plain(value) if isinstance(value, Mapping) else None
    return None


class PartialStep:
    """Reads a reply that is still being written: the call so far of its first step.

    The step is found once its ``tool_call`` has begun; a later step is never read.
    """

    def __init__(self) -> None:
        self._start: int | None = None
        self._tried = 0

    def read(self, text: str) -> Mapping[str, Any] | None:
        """Return ``thought`` and ``tool_call`` of the step in ``text``, the reply so far; ``None`` before it.

        ``before`` is the text before the step.
        """
        visible = without_thinking(text)
        step = self._read(visible)
        return None if step is None or self._start is None else {**step, "before": text_before(visible, self._start)}

    def _read(self, visible: str) -> Mapping[str, Any] | None:
        if self._start is not None:
            return _partial_step(visible, self._start)
        start = visible.find("{", self._tried)
        while start >= 0:
            value = parse_partial(visible, start)
            if value is not None and (step := _to_partial_step(value)) is not None:
                self._start = start
                return step
            if value is not None and not is_closed(visible, start):
                return None  # it may still become a step
            self._tried = start = visible.find("{", start + 1)
            if start < 0:
                self._tried = len(visible)
        return None


def _objects(text: str) -> Iterator[tuple[int, Any, bool]]:
    """Yield the start and the value of each JSON object in a text, and whether it is closed; outer ones first."""
    start, repairs = text.find("{"), 0
    for _ in range(_MAX_CANDIDATES):
        if start < 0 or repairs > _MAX_REPAIRS:
            return
        value, complete = _object_at(text, start)
        repairs += not complete
        yield start, value, complete
        start = text.find("{", start + 1)


def _object_at(text: str, start: int) -> tuple[Any, bool]:
    try:
        return _DECODER.raw_decode(text, start)[0], True
    except (ValueError, RecursionError):
        pass
    end = _end_of_object(text, start)
    if end is None:
        return _repaired(text[start:]), False
    segment = text[start:end]
    readers: tuple[tuple[Any, str], ...] = (
        (_DECODER.decode, _with_literal_backslashes(segment, apostrophe="'")),
        (ast.literal_eval, _with_literal_backslashes(segment, apostrophe="\\'")),
    )
    for read, written in readers:
        try:
            return read(written), True
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    return _repaired(segment), True


def _with_literal_backslashes(text: str, apostrophe: str) -> str:
    """Double the backslashes of paths, regular expressions and LaTeX that an LM hasn't escaped.

    JSON knows no other escapes than those that are kept, but for two control characters that nobody writes.

    Args:
        text: the object.
        apostrophe: what an escaped apostrophe, which JSON doesn't know, becomes.
    """
    known = {"\\'": apostrophe}
    return _ESCAPE.sub(lambda match: known.get(match[0], match[0] if match["known"] else "\\\\"), text)


def _repaired(text: str) -> Any:
    if text.count("{") + text.count("[") > _MAX_BRACKETS:
        return None  # json_repair takes minutes for it
    try:
        value = json_repair.loads(text)
    except (ValueError, RecursionError):  # nested too deep
        return None
    return value[0] if isinstance(value, list) and value else value


def _end_of_object(text: str, start: int) -> int | None:
    """Return the end of the braces that open at ``start``, not counting those in strings; ``None`` if still open."""
    depth, quote, escaped, before = 0, "", False, ""
    for index in range(start, len(text)):
        char = text[index]
        if quote:
            if escaped:
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == quote:
                quote = ""
                before = char
            continue
        if char == '"' or (char == "'" and before in "{[,:("):
            quote = char
        elif char == "{":
            depth += 1
        elif char == "}":
            depth -= 1
            if depth == 0:
                return index + 1
        if not char.isspace():
            before = char
    return None


def _to_step(value: Any, complete: bool, names: FunctionNames | None) -> ParsedReply | None:
    if not isinstance(value, Mapping):
        return None
    found = _calls_of(value, names)
    if not found:
        return None
    first, *rest = found
    more = value.get("parallel_calls")
    others = [_to_call(each, names) for each in more] if isinstance(more, list) else []
    parallel = [each for each in (*rest, *others) if each is not None]
    thought = value.get("thought")
    return ParsedReply(first, tuple(parallel), str(plain(thought)) if thought else "", complete)


def _calls_of(value: Mapping[str, Any], names: FunctionNames | None) -> list[ParsedCall]:
    """Return the calls that an object makes: ``tool_call``, ``tool_calls``, or the object itself."""
    given = next((value[key] for key in _CALL_KEYS if value.get(key) is not None), None)
    if given is None:
        call = _to_call(value, names, bare=True)
        return [] if call is None else [call]
    if isinstance(given, str):
        arguments = {key: value[key] for key in ARGUMENT_KEYS if key in value}
        given = _decoded(given, {"name": given, **arguments} if arguments else _called_in_python(given, names))
    calls = [_to_call(each, names) for each in given] if isinstance(given, list) else [_to_call(given, names)]
    return [call for call in calls if call is not None]


def _called_in_python(text: str, names: FunctionNames | None) -> dict[str, Any] | None:
    call = first_marked_call(text, names, _object_at) if names is not None else None
    return None if call is None else {"name": call.name, "args": call.args}


def _to_call(value: Any, names: FunctionNames | None, bare: bool = False) -> ParsedCall | None:
    """Return the call that an object makes; a ``bare`` object may also be something else."""
    if not isinstance(value, Mapping):
        return None
    if isinstance(value.get("function"), Mapping):  # as OpenAI writes calls
        value = value["function"]
    name = next((value[key] for key in _NAME_KEYS if isinstance(value.get(key), str) and value[key]), None)
    key = next((each for each in ARGUMENT_KEYS if each in value), None)
    if name is None:
        return _named_by_key(value, names)
    if key is None:
        if names is not None and names.resolve(name) in names:
            flat = {name: each for name, each in value.items() if name not in _BESIDE_ARGUMENTS}
            return _parsed_call(name, flat, names)
        return None if bare else _parsed_call(name, {}, names)
    args = value[key]
    if isinstance(args, str):
        args = _decoded(args, {} if not args.strip() else args)
    if args is None:
        args = {}
    is_only = isinstance(args, str) and names is not None and len(names.arguments(names.resolve(name))) == 1
    return _parsed_call(name, args, names) if is_only or isinstance(args, Mapping) else None


def _named_by_key(value: Mapping[str, Any], names: FunctionNames | None) -> ParsedCall | None:
    """Return the call of ``{"<tool>": {<arguments>}}``."""
    if names is None or len(value) != 1:
        return None
    ((name, args),) = value.items()
    is_call = isinstance(name, str) and names.resolve(name) in names and isinstance(args, Mapping)
    return _parsed_call(name, args, names) if is_call else None


def _parsed_call(name: str, args: Any, names: FunctionNames | None) -> ParsedCall:
    name = replace_surrogates(name)
    if names is None:
        return ParsedCall(name, plain(args) if isinstance(args, Mapping) else {})
    declared = names.resolve(name)
    return ParsedCall(declared, names.read_arguments(declared, args))


def _decoded(text: str, otherwise: Any) -> Any:
    """Return the object or list that a text contains as JSON; ``otherwise`` if it contains none."""
    stripped = text.strip()
    if not stripped.startswith(("{", "[")):
        return otherwise
    return _object_at(stripped, 0)[0] if stripped.startswith("{") else _repaired_list(stripped)


def _repaired_list(text: str) -> Any:
    try:
        return _DECODER.raw_decode(text)[0]
    except (ValueError, RecursionError):
        return None


def _partial_step(text: str, start: int) -> Mapping[str, Any] | None:
    value = parse_partial(text, start)
    return None if value is None else _to_partial_step(value)


def parse_partial(text: str, start: int) -> Mapping[str, Any] | None:
    """Return the JSON object that begins at ``start``, as far as it is written; ``None`` if there is none."""
    written = replace_surrogates(text[start:])
    try:
        value = from_json(written, allow_partial="trailing-strings")
    except ValueError:
        try:
            value = _DECODER.raw_decode(written)[0]
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, Mapping) else None


def is_closed(text: str, start: int) -> bool:
    """Return whether the object that begins at ``start`` ends in the text."""
    return _end_of_object(text, start) is not None


def _to_partial_step(value: Mapping[str, Any]) -> Mapping[str, Any] | None:
    call: Any = value.get("tool_call")
    if call is None and _partial_name(value) and any(key in value for key in ARGUMENT_KEYS):
        call = value
    if not isinstance(call, Mapping):
        return None
    key = next((each for each in ARGUMENT_KEYS if each in call), None)
    args = call.get(key) if key is not None else None
    if isinstance(args, str):
        try:
            args = from_json(args, allow_partial="trailing-strings")
        except ValueError:
            args = None
    return {"thought": value.get("thought"), "tool_call": {"name": _partial_name(call), "args": args}}


def _partial_name(call: Mapping[str, Any]) -> str | None:
    return next((call[key] for key in _NAME_KEYS if isinstance(call.get(key), str)), None)
