"""Whether a run used the right tools: which, in what order, with what arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import dspy
import numpy as np
from scipy.optimize import linear_sum_assignment

from oneturn.errors import DataError
from oneturn.evaluation.run_record import arguments, run_record
from oneturn.evaluation.scorers.base import Scorer, Verdict, expected, f1, listed, scorer, texts

Measure = Literal["f1", "precision", "recall", "exact"]
Arguments = Mapping[str, Any]
Match = Literal["exact", "subset"] | Callable[[Arguments, Arguments], bool]


def tool_use(field: str = "expected_tools", *, measure: Measure = "f1", name: str = "tool_use") -> Scorer:
    """Which tools were called, each counted once.

    Args:
        field: the example's field with their names; an empty list for a question that needs none.
        measure: ``"f1"``, ``"precision"``, ``"recall"``, or ``"exact"``: these and no others.
        name: of the column.
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
    """In what order tools were called: the longest common subsequence, as a share of the longer list.

    Args:
        field: the example's field with their names, in order; a tool that is called twice stands there twice.
        name: of the column.
    """

    def judge(example: dspy.Example, prediction: Any) -> Verdict:
        wanted = _names(expected(example, field))
        called = _called(prediction)
        longest = max(len(called), len(wanted))
        score = _in_order(called, wanted) / longest if longest else 1.0
        if score == 1.0:
            return Verdict(score, "The tools were called in the right order.")
        return Verdict(score, f"You called {listed(called)}; right would be this order: {listed(wanted)}.")

    return scorer(name, judge, field=field)


def tool_arguments(
    field: str = "expected_tool_calls", *, match: Match = "exact", name: str = "tool_arguments"
) -> Scorer:
    """With what arguments tools were called: the share of the expected calls that were made, each paired with one call.

    Args:
        field: the example's field with the calls, each ``{"name": …, "arguments": {…}}``.
        match: ``"exact"`` for these arguments and no others; ``"subset"`` where a call may have more of them; or a
            function of the expected and the given arguments.
        name: of the column.
    """
    agree = match if callable(match) else _MATCHES[match]

    def judge(example: dspy.Example, prediction: Any) -> Verdict:
        wanted = [_expected_call(call) for call in expected(example, field)]
        made = [(str(call["name"]), _arguments(call)) for call in run_record(prediction).tool_calls]
        pairs = np.array([[name == to and agree(want, had) for to, had in made] for name, want in wanted], dtype=int)
        pairs = pairs.reshape(len(wanted), len(made))
        rows, columns = linear_sum_assignment(pairs, maximize=True)
        met = {int(row) for row, column in zip(rows, columns, strict=True) if pairs[row, column]}
        missing = [f"{name}({_told(want)})" for place, (name, want) in enumerate(wanted) if place not in met]
        score = len(met) / len(wanted) if wanted else 1.0
        if not missing:
            return Verdict(score, "The arguments are right.")
        called = listed(f"{name}({_told(had)})" for name, had in made)
        return Verdict(score, f"Not called so: {listed(missing)}. You called: {called}.")

    return scorer(name, judge, field=field, match=getattr(match, "__qualname__", match))


def forbidden_tools(
    names: Sequence[str] = (), *, field: str = "forbidden_tools", name: str = "forbidden_tools"
) -> Scorer:
    """Whether no forbidden tool was called: 1 or 0.

    Args:
        names: forbidden for every example.
        field: the example's field with those that are forbidden for it; needed where ``names`` is empty.
        name: of the column.
    """

    def judge(example: dspy.Example, prediction: Any) -> Verdict:
        own = example.get(field) if names else expected(example, field)
        forbidden = {*names, *texts(own or ())}
        wrong = [each for each in dict.fromkeys(_called(prediction)) if each in forbidden]
        if wrong:
            return Verdict(0.0, f"Don't call {listed(wrong)} here.")
        return Verdict(1.0, "No forbidden tool was called.")

    return scorer(name, judge, names=tuple(names), field=field)


def _called(prediction: Any) -> list[str]:
    return [str(call["name"]) for call in run_record(prediction).tool_calls]


def _names(wanted: Any) -> list[str]:
    given = [wanted] if isinstance(wanted, str) else wanted
    return [str(call["name"]) if isinstance(call, Mapping) else str(call) for call in given]


def _difference(called: Sequence[str], wanted: Sequence[str]) -> str:
    missing = [name for name in dict.fromkeys(wanted) if name not in called]
    surplus = [name for name in dict.fromkeys(called) if name not in wanted]
    told = [f"Call {listed(missing)}, which this needs."] if missing else []
    told += [f"Don't call {listed(surplus)}: this doesn't need it."] if surplus else []
    return " ".join(told) or "The right tools were called."


def _in_order(called: Sequence[str], wanted: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(wanted) + 1)
    for one in called:
        before = row[:]
        for place, other in enumerate(wanted, start=1):
            row[place] = before[place - 1] + 1 if one == other else max(before[place], row[place - 1])
    return row[-1]


def _expected_call(call: Any) -> tuple[str, Arguments]:
    if not isinstance(call, Mapping) or "name" not in call:
        raise DataError(f'{call!r:.80} is no expected tool call; write {{"name": …, "arguments": {{…}}}}.')
    return str(call["name"]), _arguments(call)


def _arguments(call: Mapping[str, Any]) -> Arguments:
    given = arguments(call.get("arguments") or {})
    return given if isinstance(given, Mapping) else {"": given}


def _told(given: Arguments) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in given.items())


_MATCHES: dict[str, Callable[[Arguments, Arguments], bool]] = {
    "exact": lambda wanted, given: dict(wanted) == dict(given),
    "subset": lambda wanted, given: all(name in given and given[name] == wanted[name] for name in wanted),
}
