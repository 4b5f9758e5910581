"""The work of a recipe: declare it, and estimate the cost of a compile from it."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from oneturn.evaluation.result import Evaluation

_WORK = "__oneturn_work__"
_STANDARD_ERRORS = 2.0  # standard errors: about 95%
_REFLECTION_TOKENS = (1_000, 8_000)
_CHANGE = (0.6, 1.25)
"""Factor by which a candidate changes the steps of a run. 0.6 was measured on the reference agent, which learns to stop
early."""

RecipeT = TypeVar("RecipeT", bound=Callable[..., Any])
Range = tuple[float, float]


@dataclass(frozen=True)
class Work:
    """The work of a recipe; each value is a minimum and a maximum.

    Attributes:
        runs: number of program runs on one example.
        reflections: number of other LM calls, such as for new instructions.
        prompt_growth: length of the candidates' prompts relative to the uncompiled program's.
    """

    runs: tuple[int, int]
    reflections: tuple[int, int] = (0, 0)
    prompt_growth: Range = (1.0, 1.0)

    def then(self, other: Work) -> Work:
        """Add the work of a second recipe that starts from the program of the first."""
        return Work(
            runs=(self.runs[0] + other.runs[0], self.runs[1] + other.runs[1]),
            reflections=(self.reflections[0] + other.reflections[0], self.reflections[1] + other.reflections[1]),
            prompt_growth=_times(self.prompt_growth, other.prompt_growth),
        )


WorkOf = Callable[[int, int], Work]
"""Returns the work for given numbers of training and development examples."""


@dataclass(frozen=True)
class Estimate:
    """The estimated cost of a compile; each range is a minimum and a maximum.

    Attributes:
        lm_calls: LM calls.
        tokens: prompt and completion tokens.
        minutes: minutes.
        cost: US dollars; ``None`` if no price is known.
        measured_rows: number of examples that the estimate is based on.
        failed_rows: number of those that failed.
    """

    lm_calls: Range
    tokens: Range
    minutes: Range
    cost: Range | None
    measured_rows: int
    failed_rows: int = 0

    def __str__(self) -> str:
        spans = [
            _format_range(self.lm_calls, "LM calls"),
            _format_range(_times((0.001, 0.001), self.tokens), "thousand tokens"),
        ]
        spans.append(_format_range(self.minutes, "minutes"))
        if self.cost is not None:
            spans.append(_format_range(self.cost, "US dollars"))
        return ", ".join(spans)

    def plus(self, other: Estimate) -> Estimate:
        """Add the estimate of the same recipe for another LM."""
        known = self.cost is not None and other.cost is not None
        return Estimate(
            lm_calls=_sum(self.lm_calls, other.lm_calls),
            tokens=_sum(self.tokens, other.tokens),
            minutes=_sum(self.minutes, other.minutes),
            cost=_sum(self.cost, other.cost) if known else None,  # type: ignore[arg-type]  # both are known
            measured_rows=self.measured_rows + other.measured_rows,
            failed_rows=self.failed_rows + other.failed_rows,
        )

    def to_dict(self) -> dict[str, list[float]]:
        """The ranges by name."""
        ranges = {"lm_calls": self.lm_calls, "tokens": self.tokens, "minutes": self.minutes, "cost": self.cost}
        return {name: [round(value, 4) for value in span] for name, span in ranges.items() if span is not None}


def recipe(work: WorkOf) -> Callable[[RecipeT], RecipeT]:
    """Declare the work of a recipe, so that its cost can be estimated.

        @oneturn.recipe(lambda train, dev: oneturn.compilation.Work(runs=(4 * dev, 4 * dev + train)))
        def mine(student, *, trainset, valset, metric, seed, threads): ...

    A recipe without a declaration works too, but has no estimate.

    Args:
        work: returns the work for given numbers of training and development examples, without the evaluations before
            and after the recipe.
    """

    def declare(function: RecipeT) -> RecipeT:
        setattr(function, _WORK, work)
        return function

    return declare


def work_of(recipe: Any, train: int, dev: int) -> Work | None:
    """Return the declared work of a recipe; ``None`` if it declares none.

    Args:
        recipe: the recipe.
        train: number of training examples.
        dev: number of development examples.
    """
    work = declared_work(recipe)
    return work(train, dev) if work is not None else None


def declared_work(recipe: Any) -> WorkOf | None:
    """Return the function that a recipe was declared with; ``None`` if it wasn't declared."""
    work: WorkOf | None = getattr(recipe, _WORK, None)
    return work


def estimate(work: Work, dev: int, probe: Evaluation, price: float | None, threads: int) -> Estimate:
    """Estimate the cost of a compile: the measurement before, the recipe, the measurement after.

    Args:
        work: the work of the recipe.
        dev: number of development examples.
        probe: evaluation of the uncompiled program on a few of them.
        price: US dollars per token, from the probe; ``None`` if no price is known.
        threads: number of examples to run in parallel.
    """
    rows = probe.rows
    changed = (work.runs[0] + dev, work.runs[1] + dev)  # runs of changed programs, the final measurement included
    prompts = _times(_CHANGE, work.prompt_growth)
    lm_calls = _sum(_runs(rows["lm_calls"], dev, changed, _CHANGE), work.reflections)
    tokens = _sum(
        _runs(rows["prompt_tokens"], dev, changed, prompts),
        _runs(rows["completion_tokens"], dev, changed, _CHANGE),
        _times(work.reflections, _REFLECTION_TOKENS),
    )
    calls, seconds = _mean_range(rows["lm_calls"]), _mean_range(rows["seconds"])
    per_call = seconds[0] / max(calls[1], 1), seconds[1] / max(calls[0], 1)
    waiting = _sum(_runs(rows["seconds"], dev, changed, prompts), _times(work.reflections, per_call))
    return Estimate(
        lm_calls=lm_calls,
        tokens=tokens,
        minutes=(waiting[0] / 60 / threads, waiting[1] / 60 / threads),
        cost=(tokens[0] * price, tokens[1] * price) if price is not None else None,
        measured_rows=len(rows),
        failed_rows=int(rows["error"].notna().sum()),
    )


def _format_range(span: Range, unit: str) -> str:
    low, high = (f"{value:,.0f}" if span[1] >= 10 else f"{value:,.2g}" for value in span)
    return f"{low} to {high} {unit}"


def _runs(values: Any, before: int, changed: Range, change: Range) -> Range:
    """What the runs take: those of the uncompiled program as measured, the parameters as a candidate may change it."""
    each = _mean_range(values)
    return _sum(_times((before, before), each), _times(changed, _times(each, change)))


def _mean_range(values: Any) -> Range:
    """The range in which the mean of such values lies."""
    numbers = [float(value) for value in values]
    mean = statistics.fmean(numbers)
    error = statistics.stdev(numbers) / len(numbers) ** 0.5 if len(numbers) > 1 else mean / 2
    return max(min(numbers), mean - _STANDARD_ERRORS * error), mean + _STANDARD_ERRORS * error


def _times(a: Range, b: Range) -> Range:
    return a[0] * b[0], a[1] * b[1]


def _sum(*spans: Range) -> Range:
    return sum(span[0] for span in spans), sum(span[1] for span in spans)
