"""How the prompts are compiled: each recipe is one of DSPy's optimizers with its settings and its budget."""

import random
from collections.abc import Callable
from typing import Any

import dspy
from dspy.teleprompt import BootstrapFewShot

import oneturn
from optimizers.worked import solve

Examples = list[dspy.Example]
Metric = Callable[..., Any]

CANDIDATES = 4


def worked(
    student: oneturn.ReAct, *, trainset: Examples, valset: Examples, metric: Metric, seed: int, threads: int
) -> dspy.Module:
    """Take it for a first try, in seconds: a labelled example of each category, worked out with the tools."""
    return _with_demos(student, _one_of_each(trainset, seed), metric)


def random_search(
    student: oneturn.ReAct, *, trainset: Examples, valset: Examples, metric: Metric, seed: int, threads: int
) -> dspy.Module:
    """Take it when half an hour is fine: several such sets of demos, drawn at random, judged on the development set."""
    first = seed * CANDIDATES
    candidates = [
        _with_demos(student, _one_of_each(trainset, draw), metric) for draw in range(first, first + CANDIDATES)
    ]
    judge = dspy.Evaluate(
        devset=valset, metric=metric, num_threads=threads, max_errors=len(valset), display_progress=True
    )
    return max(candidates, key=lambda candidate: judge(candidate).score)


def bootstrap(
    student: oneturn.ReAct, *, trainset: Examples, valset: Examples, metric: Metric, seed: int, threads: int
) -> dspy.Module:
    """Take it with a strong LM, which needs no worked examples: four of its own fully right runs become demos."""
    optimizer = BootstrapFewShot(metric=metric, max_bootstrapped_demos=4, max_labeled_demos=0)
    return optimizer.compile(student, trainset=trainset)


def _with_demos(student: oneturn.ReAct, examples: Examples, metric: Metric) -> dspy.Module:
    optimizer = BootstrapFewShot(metric=metric, max_bootstrapped_demos=len(examples), max_labeled_demos=0)
    teacher = oneturn.WorkedExamples(student, examples, solve)
    return optimizer.compile(student, teacher=teacher, trainset=examples)


def _one_of_each(trainset: Examples, seed: int) -> Examples:
    """An example of each category, drawn and ordered at random."""
    shuffled = random.Random(seed).sample(trainset, len(trainset))  # noqa: S311  # no secret: a draw
    return list({example.category: example for example in shuffled}.values())


RECIPES = {"worked": worked, "random_search": random_search, "bootstrap": bootstrap}
