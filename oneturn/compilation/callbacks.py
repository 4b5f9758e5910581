"""Callbacks of a compile."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import dspy
from dspy.utils.callback import BaseCallback

from oneturn.core._dspy import restore_forward
from oneturn.core.usage import Usage

if TYPE_CHECKING:
    from oneturn.agent import Agent
    from oneturn.compilation.candidate import Candidate
    from oneturn.compilation.recipes.work import Estimate
    from oneturn.compilation.result import Compilation


class CompileCallback:
    """Base class for callbacks of a compile; override the methods you need.

    An error in a callback is logged and doesn't end the compile.
    """

    def on_start(self, agent: Agent, recipe: str, key: str, estimate: Estimate | None) -> None:
        """The compile starts; ``key`` is the same each time the same compile is started."""

    def on_candidate(self, candidate: Candidate) -> None:
        """A program was measured."""

    def on_usage(self, totals: Usage, seconds: float) -> None:
        """An LM call completed. The first call of this method may report the usage of earlier runs of the compile."""

    def on_end(self, compilation: Compilation) -> None:
        """The compile ended and its program is saved."""

    def on_interrupted(self, error: BaseException) -> None:
        """The compile was interrupted or failed; it can be resumed."""


OnCandidate = Callable[[dspy.Module, Sequence[float], bool], object]


class EvaluationObserver(BaseCallback):
    """Reports each program that DSPy's ``Evaluate`` measures, from any optimizer.

    Args:
        devset: all development examples.
        on_candidate: called with the program, its scores, and whether they cover the whole ``devset``.
    """

    def __init__(self, devset: Iterable[dspy.Example], on_candidate: OnCandidate):
        self._devset = _keys(devset)
        self._on_candidate = on_candidate
        self._programs: dict[str, dspy.Module] = {}

    def on_evaluate_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Copy the program, because the optimizer may still change it."""
        if isinstance(inputs.get("program"), dspy.Module):
            self._programs[call_id] = restore_forward(inputs["program"].deepcopy())

    def on_evaluate_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """Report the program's scores, unless the evaluation failed."""
        program = self._programs.pop(call_id, None)
        if program is None or exception is not None:
            return
        scores_by_key = {_key(example): score_of(result) for example, _, result in outputs.results}
        full = len(outputs.results) == len(self._devset) and set(scores_by_key) == set(self._devset)
        scores = [scores_by_key[key] for key in self._devset] if full else list(scores_by_key.values())
        self._on_candidate(program, scores, full)


def score_of(result: Any) -> float:
    """Convert a metric's result to a number."""
    return float(result.score if isinstance(result, dspy.Prediction) else result)


def _keys(examples: Iterable[dspy.Example]) -> list[str]:
    return [_key(example) for example in examples]


def _key(example: dspy.Example) -> str:
    return repr(sorted(example.items(), key=lambda item: item[0]))
