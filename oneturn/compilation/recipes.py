"""Recipes: how they are called, and how two become one."""

from __future__ import annotations

import inspect
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import dspy

from oneturn.errors import ConfigError
from oneturn.evaluation.result import Evaluation

_WORK = "__oneturn_work__"
_WIDE = 2.0  # standard errors: about 95%
_REFLECTION_TOKENS = (1_000, 8_000)
_CHANGE = (0.6, 1.25)
"""By what a candidate changes the steps of a run: 0.6 measured on the reference agent, which learns to stop."""

RecipeT = TypeVar("RecipeT", bound=Callable[..., Any])
Range = tuple[float, float]


@dataclass(frozen=True)
class Work:
    """What a recipe does, each as least and most.

    Attributes:
        runs: how often it runs the program on an example.
        reflections: how often it asks an LM for something else, such as new instructions.
        prompt_growth: how many times as long its candidates' prompts are as the uncompiled program's.
    """

    runs: tuple[int, int]
    reflections: tuple[int, int] = (0, 0)
    prompt_growth: Range = (1.0, 1.0)

    def then(self, other: Work) -> Work:
        """This work, and another after it on what it has made."""
        return Work(
            runs=(self.runs[0] + other.runs[0], self.runs[1] + other.runs[1]),
            reflections=(self.reflections[0] + other.reflections[0], self.reflections[1] + other.reflections[1]),
            prompt_growth=_times(self.prompt_growth, other.prompt_growth),
        )


WorkOf = Callable[[int, int], Work]
"""Gives the work for so many training and development examples."""


@dataclass(frozen=True)
class Estimate:
    """What a compile will cost, each as least and most.

    Attributes:
        lm_calls: LM calls.
        tokens: tokens read and written.
        minutes: minutes.
        cost: US dollars; ``None`` where no price is known.
        measured_rows: how many questions it rests on.
        failed_rows: how many of them had no answer.
    """

    lm_calls: Range
    tokens: Range
    minutes: Range
    cost: Range | None
    measured_rows: int
    failed_rows: int = 0

    def __str__(self) -> str:
        spans = [_told(self.lm_calls, "LM calls"), _told(_times((0.001, 0.001), self.tokens), "thousand tokens")]
        spans.append(_told(self.minutes, "minutes"))
        if self.cost is not None:
            spans.append(_told(self.cost, "US dollars"))
        return ", ".join(spans)

    def to_dict(self) -> dict[str, list[float]]:
        """Its ranges by name."""
        told = {"lm_calls": self.lm_calls, "tokens": self.tokens, "minutes": self.minutes, "cost": self.cost}
        return {name: [round(value, 4) for value in span] for name, span in told.items() if span is not None}


def recipe(work: WorkOf) -> Callable[[RecipeT], RecipeT]:
    """Declare what a recipe does, so that its cost can be told before.

        @oneturn.recipe(lambda train, dev: oneturn.Work(runs=(4 * dev, 4 * dev + train)))
        def mine(student, *, trainset, valset, metric, seed, threads): ...

    A recipe that isn't declared works as well; nobody knows before what it costs.

    Args:
        work: gives what it does for so many training and development examples. What is measured before and after it
            isn't its own.
    """

    def declare(function: RecipeT) -> RecipeT:
        setattr(function, _WORK, work)
        return function

    return declare


def work_of(recipe: Any, train: int, dev: int) -> Work | None:
    """What a recipe has declared; ``None`` if it hasn't."""
    of = declared_work(recipe)
    return of(train, dev) if of is not None else None


def declared_work(recipe: Any) -> WorkOf | None:
    """What gives a recipe's work; ``None`` if it hasn't declared any."""
    found: WorkOf | None = getattr(recipe, _WORK, None)
    return found


def estimate(work: Work, dev: int, probe: Evaluation, price: float | None, threads: int) -> Estimate:
    """What a compile with this work will cost: the measurement before, the recipe, the measurement after.

    Args:
        work: what the recipe does.
        dev: development examples.
        probe: a few of them, asked of the uncompiled program.
        price: US dollars a token, as the probe has cost; ``None`` where no price is known.
        threads: examples at the same time.
    """
    rows = probe.rows
    changed = (work.runs[0] + dev, work.runs[1] + dev)  # runs of programs that may take other steps, "after" included
    prompts = _times(_CHANGE, work.prompt_growth)
    lm_calls = _sum(_runs(rows["lm_calls"], dev, changed, _CHANGE), work.reflections)
    tokens = _sum(
        _runs(rows["prompt_tokens"], dev, changed, prompts),
        _runs(rows["completion_tokens"], dev, changed, _CHANGE),
        _times(work.reflections, _REFLECTION_TOKENS),
    )
    calls, seconds = _spread(rows["lm_calls"]), _spread(rows["seconds"])
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


def _told(span: Range, unit: str) -> str:
    low, high = (f"{value:,.0f}" if span[1] >= 10 else f"{value:,.2g}" for value in span)
    return f"{low} to {high} {unit}"


def _runs(values: Any, before: int, changed: Range, change: Range) -> Range:
    """What the runs take: those of the uncompiled program as measured, the others as a candidate may change it."""
    each = _spread(values)
    return _sum(_times((before, before), each), _times(changed, _times(each, change)))


def _spread(values: Any) -> Range:
    """Where the mean of such values lies."""
    found = [float(value) for value in values]
    mean = statistics.fmean(found)
    error = statistics.stdev(found) / len(found) ** 0.5 if len(found) > 1 else mean / 2
    return max(min(found), mean - _WIDE * error), mean + _WIDE * error


def _times(a: Range, b: Range) -> Range:
    return a[0] * b[0], a[1] * b[1]


def _sum(*spans: Range) -> Range:
    return sum(span[0] for span in spans), sum(span[1] for span in spans)


Recipe = Callable[..., dspy.Module]

GIVEN = ("trainset", "valset", "metric", "seed", "threads", "teacher")
"""What a recipe can have, beside the program."""


def chain(first: Recipe, second: Recipe, *, when: str | None = None) -> Recipe:
    """A recipe that lets ``second`` work on what ``first`` has made, each with all that the compile was given.

    Args:
        first: such as one that finds demos.
        second: such as one that rewrites instructions. One that finds demos puts its own in the place of the first's.
        when: the line that says when to take it; ``None`` for those of the two.
    """

    def both(student: dspy.Module, **given: Any) -> dspy.Module:
        made = call(first, student, given)
        made._compiled = False  # an optimizer leaves a part that is marked so as it is
        return call(second, made, given)

    both.__doc__ = when or f"{_first_line(first)} Then: {_first_line(second)}"
    works = [declared_work(part) for part in (first, second)]
    if works[0] is None or works[1] is None:
        return both
    before, after = works[0], works[1]
    return recipe(lambda train, dev: before(train, dev).then(after(train, dev)))(both)


def call(function: Recipe, student: dspy.Module, given: dict[str, Any]) -> dspy.Module:
    """Call a recipe with those of the arguments that it takes.

    Raises:
        ConfigError: it wants something else, too, or gives no program.
    """
    check(function)
    parameters = inspect.signature(function).parameters.values()
    takes_all = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    names = {parameter.name for parameter in parameters}
    made = function(student, **{name: value for name, value in given.items() if takes_all or name in names})
    if not isinstance(made, dspy.Module):
        raise ConfigError(f"The recipe {_name(function)} gave {made!r:.80}: it must return the compiled program.")
    return made


def check(function: Recipe) -> None:
    """Raise ``ConfigError`` if a recipe wants something that no compile gives."""
    others = list(inspect.signature(function).parameters.values())[1:]
    needed = [parameter for parameter in others if parameter.kind in _NAMED and parameter.default is parameter.empty]
    if unknown := [parameter.name for parameter in needed if parameter.name not in GIVEN]:
        raise ConfigError(
            f"The recipe {_name(function)} wants {', '.join(unknown)}. Beside the program a recipe can have "
            f"{', '.join(GIVEN)}; give anything else a default."
        )


def described(recipes: dict[str, Recipe]) -> str:
    """The recipes' names, each with the line that says when to take it."""
    width = max(map(len, recipes), default=0)
    return "\n".join(f"  {name:<{width}}  {_first_line(function)}" for name, function in recipes.items())


_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _name(function: Recipe) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _first_line(function: Recipe) -> str:
    return (inspect.getdoc(function) or "It doesn't say when to take it.").splitlines()[0]
