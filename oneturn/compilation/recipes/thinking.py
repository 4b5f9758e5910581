"""The recipe that chooses whether and how an LM writes its thoughts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dspy

from oneturn.compilation.recipes.work import Work, recipe
from oneturn.errors import ConfigError
from oneturn.programs.react import ReAct, Thoughts

OPTIONS: tuple[Thoughts, ...] = (False, True, "free")
"""The options, from the fewest tokens to the most: of equal scores the first is kept."""


@recipe(lambda train, dev: Work(runs=(len(OPTIONS) * dev, len(OPTIONS) * dev), prompt_growth=(1, 1.2)))
def thoughts(student: ReAct, *, valset: list[dspy.Example], metric: Callable[..., Any], threads: int) -> dspy.Module:
    """Use it when a small LM has to calculate or combine facts: no, short or free thoughts, by their dev score.

    Chain a recipe that selects demos after it: ``chain(thoughts, bootstrap)``.

    Args:
        student: the program to compile.
        valset: labelled examples.
        metric: the metric.
        threads: the number of examples to run at the same time.

    Raises:
        ConfigError: the program isn't a ``oneturn.ReAct``.
    """
    if not isinstance(student, ReAct):
        raise ConfigError(f"The recipe sets the thoughts of a oneturn.ReAct, not of a {type(student).__name__}.")
    evaluate = dspy.Evaluate(devset=valset, metric=metric, num_threads=threads, display_progress=True)
    candidates = []
    for option in OPTIONS:
        candidate = student.deepcopy()
        candidate.set_thoughts(option)
        candidates.append(candidate)
    return max(candidates, key=lambda candidate: evaluate(candidate).score)
