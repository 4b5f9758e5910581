"""How the prompts are compiled: each recipe is one of DSPy's optimizers with its settings and its budget."""

from collections.abc import Callable
from typing import Any

import dspy
from dspy.teleprompt import BootstrapFewShot, BootstrapFewShotWithRandomSearch

import oneturn
from optimizers.worked import solve

Examples = list[dspy.Example]
Metric = Callable[..., Any]

CANDIDATES = 6


def worked(
    student: oneturn.ReAct, *, trainset: Examples, valset: Examples, metric: Metric, seed: int, threads: int
) -> dspy.Module:
    """Take it for a first try, in seconds: four labelled examples, worked out with the tools, become demos."""
    optimizer = BootstrapFewShot(metric=metric, max_bootstrapped_demos=4, max_labeled_demos=0)
    return optimizer.compile(student, teacher=oneturn.WorkedExamples(student, trainset, solve), trainset=trainset)


def random_search(
    student: oneturn.ReAct, *, trainset: Examples, valset: Examples, metric: Metric, seed: int, threads: int
) -> dspy.Module:
    """Take it when half an hour is fine: several such sets of one to six demos, judged on the development set."""
    first = seed * CANDIDATES
    optimizer = BootstrapFewShotWithRandomSearch(
        metric=metric,
        max_bootstrapped_demos=6,
        max_labeled_demos=0,
        num_candidate_programs=first + CANDIDATES,
        num_threads=threads,
        max_errors=len(valset) * CANDIDATES,
    )
    return optimizer.compile(
        student,
        teacher=oneturn.WorkedExamples(student, trainset, solve),
        trainset=trainset,
        valset=valset,
        restrict=range(first, first + CANDIDATES),
    )


def bootstrap(
    student: oneturn.ReAct, *, trainset: Examples, valset: Examples, metric: Metric, seed: int, threads: int
) -> dspy.Module:
    """Take it with a strong LM, which needs no worked examples: four of its own fully right runs become demos."""
    optimizer = BootstrapFewShot(metric=metric, max_bootstrapped_demos=4, max_labeled_demos=0)
    return optimizer.compile(student, trainset=trainset)


RECIPES = {"worked": worked, "random_search": random_search, "bootstrap": bootstrap}
