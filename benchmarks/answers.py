"""Metrics that read the answer out of a text: a number, one of several options, or a function call.

A right answer in a sentence, after an explanation or in a code fence counts; only the form earns nothing.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import dspy

_NUMBER = re.compile(r"(?<![\d.])-?\d[\d,]*(?:\.\d+)?")
_MARKER = re.compile(r"\banswer\b\W{0,6}(?:is\b|:|=)|\\boxed\{|####", re.IGNORECASE)
_IGNORED = re.compile(r"[ ,./\-_*^]")


class Call(NamedTuple):
    """A function call as a value."""

    name: str
    args: Mapping[str, Any]


def number(gold: dspy.Example, pred: Any, trace: Any = None, pred_name: Any = None, pred_trace: Any = None) -> Any:
    """Whether the answer's number is the expected one; see :func:`read_number`."""
    expected, answer = read_number(str(gold.answer)), read_number(_output(pred, "answer"))
    right = expected is not None and answer is not None and abs(expected - answer) <= 1e-6 * max(1, abs(expected))
    return _score(right, _output(pred, "answer"), gold.answer, pred_name)


def option(gold: dspy.Example, pred: Any, trace: Any = None, pred_name: Any = None, pred_trace: Any = None) -> Any:
    """Whether the answer names the expected one of the example's ``options``; see :func:`read_option`."""
    right = read_option(_output(pred, "answer"), gold.options) == gold.answer
    return _score(right, _output(pred, "answer"), gold.answer, pred_name)


def call(gold: dspy.Example, pred: Any, trace: Any = None, pred_name: Any = None, pred_trace: Any = None) -> Any:
    """Whether the answer's call has the expected function and an accepted value of each argument.

    The rules are those of the Berkeley Function Calling Leaderboard: case, spaces and ``,./-_*^`` of a text are
    ignored, an argument whose accepted values include ``""`` may be left out, and any further argument is wrong.
    """
    functions, accepted = json.loads(gold.functions), json.loads(gold.accepted)
    calls = read_calls(_output(pred, "call"), functions)
    (name, arguments), *_ = accepted.items()
    right = bool(calls) and calls[-1].name == name and _has_accepted_values(calls[-1].args, arguments)
    return _score(right, _output(pred, "call"), gold.call, pred_name)


def read_number(text: str) -> float | None:
    """Read the number that a text gives as its answer.

    It is the number after "answer is", "answer:", ``####`` or in a ``\\boxed{}``, after the equals sign if that line
    has one; in a text without any of these, the last number.
    """
    if (final := _after_marker(text)) and (numbers := _NUMBER.findall(final.rpartition("=")[2])):
        return float(numbers[0].replace(",", ""))
    numbers = _NUMBER.findall(text)
    return float(numbers[-1].replace(",", "")) if numbers else None


def read_option(text: str, options: Sequence[str]) -> str | None:
    """Read which option a text gives as its answer: the first after "answer is" or "answer:", else the last one."""
    longest_first = sorted(options, key=len, reverse=True)
    names = "|".join(re.sub(r"\\?-", "[- ]", re.escape(name)) for name in longest_first)
    pattern = re.compile(rf"(?<![\w-])(?:{names})(?![\w-])", re.IGNORECASE)
    found = pattern.findall(_after_marker(text) or "")[:1] or pattern.findall(text)[-1:]
    by_name = {name.casefold().replace("-", " "): name for name in options}
    return by_name[found[0].casefold().replace("-", " ")] if found else None


def read_calls(text: str, functions: Sequence[Mapping[str, Any]]) -> list[Call]:
    """Read the calls of the functions that a text contains, in order: Python calls and JSON objects.

    Args:
        text: an answer.
        functions: descriptions of the functions, with ``name`` and ``parameters.properties``.
    """
    parameters = {function["name"]: list(function["parameters"]["properties"]) for function in functions}
    found = [*_python_calls(text, parameters), *_json_calls(text, parameters)]
    return [read for _, read in sorted(found, key=lambda item: item[0])]


def _after_marker(text: str) -> str | None:
    """Return the line after the last marker of a final answer."""
    markers = list(_MARKER.finditer(text))
    return text[markers[-1].end() :].lstrip(" *_`\n").partition("\n")[0] if markers else None


def _python_calls(text: str, parameters: Mapping[str, Sequence[str]]) -> Iterator[tuple[int, Call]]:
    for name, names in parameters.items():
        for match in re.finditer(rf"(?<![\w.]){re.escape(name)}\(", text):
            ends = (end.end() for end in re.finditer(r"\)", text[match.start() :]))
            expressions = (_parsed_call(text[match.start() : match.start() + end]) for end in ends)
            if (node := next(filter(None, expressions), None)) is not None and (args := _arguments(node, names)):
                yield match.start(), Call(name, args)


def _parsed_call(text: str) -> ast.Call | None:
    try:
        node = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError):
        return None
    return node if isinstance(node, ast.Call) else None


def _arguments(node: ast.Call, names: Sequence[str]) -> dict[str, Any] | None:
    try:
        values = dict(zip(names, map(ast.literal_eval, node.args), strict=False))
        return values | {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords}
    except ValueError:  # an argument isn't a literal
        return None


def _json_calls(text: str, parameters: Mapping[str, Sequence[str]]) -> Iterator[tuple[int, Call]]:
    start = text.find("{")
    while start >= 0:
        try:
            value, end = json.JSONDecoder().raw_decode(text, start)
        except json.JSONDecodeError:
            end = start + 1
        else:
            if (read := _json_call(value, parameters)) is not None:
                yield start, read
        start = text.find("{", end)


def _json_call(value: Mapping[str, Any], parameters: Mapping[str, Sequence[str]]) -> Call | None:
    name = value.get("name") or value.get("function")
    args = next((value[key] for key in ("arguments", "args", "parameters") if key in value), None)
    if name is None and len(value) == 1:
        ((name, args),) = value.items()
    return Call(str(name), args) if name in parameters and isinstance(args, Mapping) else None


def _has_accepted_values(args: Mapping[str, Any], accepted: Mapping[str, Sequence[Any]]) -> bool:
    return all(name in accepted for name in args) and all(
        any(_equal(args[name], value) for value in values) if name in args else "" in values
        for name, values in accepted.items()
    )


def _equal(value: Any, accepted: Any) -> bool:
    if isinstance(accepted, Mapping):
        return isinstance(value, Mapping) and _has_accepted_values(value, accepted)
    if isinstance(accepted, list):
        same_length = isinstance(value, list | tuple) and len(value) == len(accepted)
        return same_length and all(map(_equal, value, accepted))
    if isinstance(accepted, str):
        return isinstance(value, str) and _plain(value) == _plain(accepted)
    return bool(value == accepted) and isinstance(value, bool) == isinstance(accepted, bool)


def _plain(text: str) -> str:
    return _IGNORED.sub("", text).lower().replace("'", '"')


def _output(pred: Any, name: str) -> str:
    value = getattr(pred, name, None)
    return "" if value is None else str(value)


def _score(right: bool, answer: str, expected: Any, pred_name: Any) -> Any:
    """Return the score, or the score with feedback for an optimizer that asks about one predictor."""
    if pred_name is None:
        return float(right)
    feedback = "Right." if right else f"{answer!r} is wrong; it should be {str(expected)!r}."
    return dspy.Prediction(score=float(right), feedback=feedback)
