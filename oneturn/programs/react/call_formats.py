"""Tool calls in the formats of LM families' chat templates.

A server that knows the family turns them into function calls. One that doesn't, or whose parser fails, passes them on
as text: Qwen's, Llama's, Mistral's, DeepSeek's, Kimi's, GLM's, gpt-oss's, Claude's and the text of ReAct prompts.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from oneturn.core.serialization import read_json
from oneturn.programs.react.function_names import FunctionNames

ObjectAt = Callable[[str, int], tuple[Any, bool]]
"""Reads the JSON object that begins at a position of a text; also returns whether it is closed."""

_PREFIX = "(?:antml:|｜DSML｜)?"
_NAME = r"(?P<name>[\w.:/-]+)"
# A name and what stands between it and the JSON object of its arguments.
_BEFORE_OBJECT = [
    re.compile(rf"\[TOOL_CALLS\]\s*{_NAME}(?:\[CALL_ID\]\w*)?(?:\[ARGS\])?\s*(?=\{{)"),  # Mistral
    re.compile(
        rf"<｜tool▁call▁begin｜>(?:function<｜tool▁sep｜>)?{_NAME}\s*(?:<｜tool▁sep｜>|```json)\s*(?=\{{)"
    ),  # DeepSeek
    re.compile(rf"<\|tool_call_begin\|>\s*{_NAME}\s*<\|tool_call_argument_begin\|>\s*(?=\{{)"),  # Kimi
    re.compile(rf"\bto={_NAME}[^{{]*?<\|message\|>\s*(?=\{{)"),  # gpt-oss
    re.compile(rf"<function={_NAME}>\s*(?=\{{)"),  # Llama 3
    re.compile(rf"\bAction:\s*{_NAME}\s*Action Input:\s*(?=\{{)"),  # the text of ReAct prompts
    re.compile(rf"\[\[ ## next_tool_name ## \]\]\s*{_NAME}\s*\[\[ ## next_tool_args ## \]\]\s*(?=\{{)"),  # dspy.ReAct
]
# A name and its arguments as XML.
_AS_XML = [
    (  # Qwen Coder
        re.compile(rf"<function={_NAME}>(?P<body>.*?)(?P<end></function>|\Z)", re.DOTALL),
        re.compile(r"<parameter=(?P<key>[\w.-]+)>(?P<value>.*?)(?:</parameter>|(?=<parameter=)|\Z)", re.DOTALL),
    ),
    (  # Claude, DeepSeek 4
        re.compile(rf"<{_PREFIX}invoke name=\"{_NAME}\">(?P<body>.*?)(?P<end></{_PREFIX}invoke>|\Z)", re.DOTALL),
        re.compile(
            rf"<{_PREFIX}parameter name=\"(?P<key>[\w.-]+)\"[^>]*>(?P<value>.*?)(?:</{_PREFIX}(?:parameter)?>|\Z)",
            re.DOTALL,
        ),
    ),
    (  # GLM
        re.compile(rf"<tool_call>\s*{_NAME}\s*(?P<body>(?:<arg_key>.*?)?)(?P<end></tool_call>|\Z)", re.DOTALL),
        re.compile(r"<arg_key>(?P<key>.*?)</arg_key>\s*<arg_value>(?P<value>.*?)(?:</arg_value>|\Z)", re.DOTALL),
    ),
]
# A name and its only argument as plain text, of ReAct prompts.
_WITH_TEXT = re.compile(
    rf"\bAction:[ \t]*{_NAME}(?:[ \t]*\[(?P<inside>[^\[\]\n]+)(?P<end>\])|"
    r"\s*Action Input:[ \t]*(?P<rest>[^\s{\[`].*?)(?=(?P<next>\s*\n\s*(?:Observation|Thought|Action):)|\Z))",
    re.DOTALL,
)
# A call in Python that is all of the reply, or of its code: Llama 4, Gemma, Gemini.
_AS_PYTHON = re.compile(r"(?:\A|```\w*\n)\s*(?:<\|python_tag\|>)?\s*\[?\s*(?:print\()?(?P<name>[A-Za-z_][\w.]*)\(")
_AFTER_PYTHON = re.compile(r"[)\]\s]*(?:$|```|,|\n|<)")
_MAX_PYTHON = 20


@dataclass(frozen=True)
class MarkedCall:
    """A tool call in a chat template's format.

    Attributes:
        start: its position in the reply.
        name: the tool's name as written.
        args: its arguments.
        complete: whether the call is closed.
    """

    start: int
    name: str
    args: Any
    complete: bool


def first_marked_call(text: str, names: FunctionNames | None, object_at: ObjectAt) -> MarkedCall | None:
    """Return the first call that a reply makes in the format of a chat template; ``None`` if there is none.

    Args:
        text: the reply.
        names: the tools. Calls in Python are read only of these, since an answer may contain code.
        object_at: reads a JSON object of the text.
    """
    calls = [*_before_object(text, object_at), *_as_xml(text)]
    if names is not None:
        calls += [*_as_python(text, names), *_with_text(text, names)]
    return min(calls, key=lambda call: call.start, default=None)


def _before_object(text: str, object_at: ObjectAt) -> Iterator[MarkedCall]:
    for pattern in _BEFORE_OBJECT:
        if match := pattern.search(text):
            args, complete = object_at(text, match.end())
            yield MarkedCall(match.start(), match["name"], args, complete)


def _as_xml(text: str) -> Iterator[MarkedCall]:
    for call, parameter in _AS_XML:
        match = call.search(text)
        if match is None or match["body"].lstrip().startswith("{"):
            continue
        args = {each["key"].strip(): _value(each["value"]) for each in parameter.finditer(match["body"])}
        if args or match["end"]:
            yield MarkedCall(match.start(), match["name"], args, bool(match["end"]))


def _as_python(text: str, names: FunctionNames) -> Iterator[MarkedCall]:
    for match in itertools.islice(_AS_PYTHON.finditer(text), _MAX_PYTHON):
        declared = names.resolve(match["name"])
        if (
            declared in names
            and (args := _python_arguments(text[match.end() :], names.arguments(declared))) is not None
        ):
            yield MarkedCall(match.start(), match["name"], args, True)
            return


def _with_text(text: str, names: FunctionNames) -> Iterator[MarkedCall]:
    match = _WITH_TEXT.search(text)
    if match is not None and len(names.arguments(names.resolve(match["name"]))) == 1:
        value = (match["inside"] or match["rest"]).strip().strip("\"'")
        yield MarkedCall(match.start(), match["name"], value, bool(match["end"] or match["next"]))


def _python_arguments(rest: str, names: Sequence[str]) -> dict[str, Any] | None:
    """Return the arguments of a call in Python, of the text after its bracket; ``None`` if it is no call.

    Args:
        rest: the text after the bracket.
        names: the names of the arguments, in the order of those without a name.
    """
    ends = (found.end() for found in re.finditer(r"\)", rest))
    for end in itertools.islice(ends, _MAX_PYTHON):
        try:
            call = ast.parse(f"f({rest[:end]}", mode="eval").body
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            continue
        if not isinstance(call, ast.Call) or len(call.args) > len(names) or not _AFTER_PYTHON.match(rest, end):
            return None
        named = [(each.arg, each.value) for each in call.keywords if each.arg]
        try:
            return {name: ast.literal_eval(value) for name, value in [*zip(names, call.args, strict=False), *named]}
        except ValueError:
            return None
    return None


def _value(text: str) -> Any:
    """Return an argument that stands in XML: an object or a list as such, anything else as text."""
    value = text.strip("\n")
    if value.lstrip().startswith(("{", "[")):
        try:
            return read_json(value)
        except ValueError:
            return value
    return value
