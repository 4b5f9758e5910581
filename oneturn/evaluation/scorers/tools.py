"""Scorers for tool use: which tools, in which order, with which arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import dspy
import numpy as np
from scipy.optimize import linear_sum_assignment

from oneturn.errors import DataError
from oneturn.evaluation.run_record import arguments, run_record
from oneturn.evaluation.scorers.base import Scorer, Verdict, expected, f1, join_names, scorer, texts

Measure = Literal["f1", "precision", "recall", "exact"]
Arguments = Mapping[str, Any]
Match = Literal["exact", "subset"] | Callable[[Arguments, Arguments], bool]


def tool_use(field: str = "expected_tools", *, measure: Measure = "f1", name: str = "tool_use") -> Scorer:
    """Compare the called tools with the expected ones, each counted once.

    Args:
        field: the example's field with the tools' names; an empty list for a question that needs none.
        measure: ``"f1"``, ``"precision"``, ``"recall"``, or ``"exact"``: exactly these tools.
        name: the column's name.
    """

    def judge(example: dspy.Example, prediction: Any) -> Verdict:
        wanted = _names(expected(example, field))
        called = _called(prediction)
        shared = len(set(called) & set(wanted))
        scores = {
            "f1": f1(called, wanted),
            "precision": shared / len(set(called)) if called else float(not wanted),
            "recall": shared / len(set(wanted)) if wanted else 1.0,
            "exact": float(set(called) == set(wanted)),
        }
        return Verdict(scores[measure], _difference(called, wanted))

    return scorer(name, judge, field=field, measure=measure)


def tool_order(field: str = "expected_tools", *, name: str = "tool_order") -> Scorer:
    """Compare the order of tool calls: the longest common subsequence, as a share of the longer list.

    Args:
        field: the example's field with the tools' names, in order; a tool that is called twice is listed twice.
        name: the column's name.
    """

    def judge(example: dspy.Example, prediction: Any) -> Verdict:
        wanted = _names(expected(example, field))
        called = _called(prediction)
        longest = max(len(called), len(wanted))
        score = _common_subsequence_length(called, wanted) / longest if longest else 1.0
        if score == 1.0:
            return Verdict(score, "The tools were called in the right order.")
        return Verdict(score, f"You called {join_names(called)}; the expected order is: {join_names(wanted)}.")

    return scorer(name, judge, field=field)


def tool_arguments(
    field: str = "expected_tool_calls", *, match: Match = "exact", name: str = "tool_arguments"
) -> Scorer:
    """Compare arguments: the share of the expected calls that were made, each paired with one actual call.

    Args:
        field: the example's field with the calls, each ``{"name": …, "arguments": {…}}``.
        match: ``"exact"`` for exactly these arguments; ``"subset"`` if a call may have additional ones; or a function
            of the expected and the actual arguments.
        name: the column's name.
    """
    agree = match if callable(match) else _MATCHES[match]

    def judge(example: dspy.Example, prediction: Any) -> Verdict:
        wanted = [expected_call(call) for call in expected(example, field)]
        made = [(str(call["name"]), _arguments(call)) for call in run_record(prediction).tool_calls]
        hits = np.array([[name == tool and agree(want, had) for tool, had in made] for name, want in wanted], dtype=int)
        hits = hits.reshape(len(wanted), len(made))
        rows, columns = linear_sum_assignment(hits, maximize=True)
        matched = {int(row) for row, column in zip(rows, columns, strict=True) if hits[row, column]}
        unmatched = [call for index, call in enumerate(wanted) if index not in matched]
        missing = [f"{name}({_format_arguments(want)})" for name, want in unmatched]
        score = len(matched) / len(wanted) if wanted else 1.0
        if not missing:
            return Verdict(score, "The arguments are right.")
        called = join_names(f"{name}({_format_arguments(had)})" for name, had in made)
        return Verdict(score, f"Expected calls that were not made: {join_names(missing)}. You called: {called}.")

    return scorer(name, judge, field=field, match=getattr(match, "__qualname__", match))


def forbidden_tools(
    names: Sequence[str] = (), *, field: str = "forbidden_tools", name: str = "forbidden_tools"
) -> Scorer:
    """1 if no forbidden tool was called, else 0.

    Args:
        names: tools forbidden for every example.
        field: the example's field with the tools forbidden for it; required if ``names`` is empty.
        name: the column's name.
    """

    def judge(example: dspy.Example, prediction: Any) -> Verdict:
        example_tools = example.get(field) if names else expected(example, field)
        forbidden = {*names, *texts(example_tools or ())}
        violations = [tool for tool in dict.fromkeys(_called(prediction)) if tool in forbidden]
        if violations:
            return Verdict(0.0, f"Don't call {join_names(violations)} here.")
        return Verdict(1.0, "No forbidden tool was called.")

    return scorer(name, judge, names=tuple(names), field=field)


def _called(prediction: Any) -> list[str]:
    return [str(call["name"]) for call in run_record(prediction).tool_calls]


def _names(wanted: Any) -> list[str]:
    calls = [wanted] if isinstance(wanted, str) else wanted
    return [str(call["name"]) if isinstance(call, Mapping) else str(call) for call in calls]


def _difference(called: Sequence[str], wanted: Sequence[str]) -> str:
    missing = [name for name in dict.fromkeys(wanted) if name not in called]
    surplus = [name for name in dict.fromkeys(called) if name not in wanted]
    feedback = [f"Call {join_names(missing)}, which this needs."] if missing else []
    feedback += [f"Don't call {join_names(surplus)}: this doesn't need it."] if surplus else []
    return " ".join(feedback) or "The right tools were called."


def _common_subsequence_length(called: Sequence[str], wanted: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(wanted) + 1)
    for call in called:
        previous = row[:]
        for column, expected_call in enumerate(wanted, start=1):
            row[column] = previous[column - 1] + 1 if call == expected_call else max(previous[column], row[column - 1])
    return row[-1]


def expected_call(call: Any) -> tuple[str, Arguments]:
    """Read an expected tool call, ``{"name": …, "arguments": {…}}``, as its name and arguments.

    Raises:
        DataError: it has another form.
    """
    if not isinstance(call, Mapping) or "name" not in call:
        raise DataError(f'{call!r:.80} is not an expected tool call; write {{"name": …, "arguments": {{…}}}}.')
    return str(call["name"]), _arguments(call)


def _arguments(call: Mapping[str, Any]) -> Arguments:
    parsed = arguments(call.get("arguments") or {})
    return parsed if isinstance(parsed, Mapping) else {"": parsed}


def _format_arguments(given: Arguments) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in given.items())


_MATCHES: dict[str, Callable[[Arguments, Arguments], bool]] = {
    "exact": lambda wanted, given: dict(wanted) == dict(given),
    "subset": lambda wanted, given: all(name in given and given[name] == wanted[name] for name in wanted),
}
