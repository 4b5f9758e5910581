"""How the prompts are compiled: each recipe is one of DSPy's optimizers with its settings and its budget."""

from collections.abc import Callable
from typing import Any

import dspy
from dspy.teleprompt import BootstrapFewShot, BootstrapFewShotWithRandomSearch

Examples = list[dspy.Example]
Metric = Callable[..., Any]


def bootstrap(
    student: dspy.Module, *, trainset: Examples, valset: Examples, metric: Metric, seed: int, threads: int
) -> dspy.Module:
    """Take it first: a minute or two. The first four runs on the training set that were fully right become demos."""
    optimizer = BootstrapFewShot(metric=metric, max_bootstrapped_demos=4, max_labeled_demos=0)
    return optimizer.compile(student, trainset=trainset)


def random_search(
    student: dspy.Module, *, trainset: Examples, valset: Examples, metric: Metric, seed: int, threads: int
) -> dspy.Module:
    """Take it when an hour is fine: many sets of such demos, judged on the development set; the best one wins."""
    optimizer = BootstrapFewShotWithRandomSearch(
        metric=metric,
        max_bootstrapped_demos=4,
        max_labeled_demos=0,
        num_candidate_programs=6,
        num_threads=threads,
    )
    return optimizer.compile(student, trainset=trainset, valset=valset)


RECIPES = {"bootstrap": bootstrap, "random_search": random_search}
