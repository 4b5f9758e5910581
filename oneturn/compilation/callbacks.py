"""What happens in a compile, told while it happens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import dspy
from dspy.teleprompt import bootstrap_trace
from dspy.utils.callback import BaseCallback

from oneturn.core.usage import Totals

if TYPE_CHECKING:
    from oneturn.agent import Agent
    from oneturn.compilation.recipes import Estimate
    from oneturn.compilation.result import Candidate, Compilation


class CompileCallback:
    """Is told what happens in a compile; overwrite what you want to hear.

    An error in a listener is logged, and doesn't end the compile.
    """

    def on_start(self, agent: Agent, recipe: str, key: str, estimate: Estimate | None) -> None:
        """The compile begins; ``key`` is the same for each start of it."""

    def on_candidate(self, candidate: Candidate) -> None:
        """A program was measured."""

    def on_usage(self, totals: Totals, seconds: float) -> None:
        """An LM call was answered; or, as the first that is told, this is what earlier starts have spent."""

    def on_end(self, compilation: Compilation) -> None:
        """The compile has ended, and its program is saved."""

    def on_interrupted(self, error: BaseException) -> None:
        """The compile was interrupted, or has failed: it can be gone on with."""


OnMeasured = Callable[[dspy.Module, Sequence[float], bool], object]


class EvaluationWatcher(BaseCallback):
    """Sees each program that DSPy's ``Evaluate`` measures, whichever optimizer wants it.

    Args:
        devset: all development examples.
        on_measured: told of the program, its scores, and whether they are those of the whole ``devset``.
    """

    def __init__(self, devset: Iterable[dspy.Example], on_measured: OnMeasured):
        self._devset = _keys(devset)
        self._on_measured = on_measured
        self._open: dict[str, dspy.Module] = {}

    def on_evaluate_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """A copy of the program is kept: the optimizer may go on changing it."""
        if isinstance(inputs.get("program"), dspy.Module):
            self._open[call_id] = _as_declared(inputs["program"].deepcopy())

    def on_evaluate_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """It was measured, unless that failed."""
        program = self._open.pop(call_id, None)
        if program is None or exception is not None:
            return
        found = {_key(example): score_of(result) for example, _, result in outputs.results}
        full = len(outputs.results) == len(self._devset) and set(found) == set(self._devset)
        scores = [found[key] for key in self._devset] if full else list(found.values())
        self._on_measured(program, scores, full)


def _as_declared(program: dspy.Module) -> dspy.Module:
    """Without the ``forward`` that DSPy lays on a program while it records traces, and what that leaves behind."""
    laid = getattr(vars(program).get("forward"), "__func__", None)
    if laid is type(program).forward or getattr(laid, "__module__", None) == bootstrap_trace.__name__:
        del program.forward
    return program


def score_of(result: Any) -> float:
    """A metric's result as a number."""
    return float(result.score if isinstance(result, dspy.Prediction) else result)


def _keys(examples: Iterable[dspy.Example]) -> list[str]:
    return [_key(example) for example in examples]


def _key(example: dspy.Example) -> str:
    return repr(sorted(example.items(), key=lambda item: item[0]))
