"""Recipes that select demos: labelled examples, worked out by a script or by an LM."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Any

import dspy
from dspy.teleprompt import BootstrapFewShot, BootstrapFewShotWithRandomSearch, LabeledFewShot

from oneturn.compilation.recipes.work import Work, recipe
from oneturn.datasets import interleave
from oneturn.errors import ConfigError
from oneturn.evaluation.scorers.base import PASS
from oneturn.evaluation.scorers.tools import expected_call
from oneturn.programs.react import Demonstration, ReAct, ScriptedTeacher

Examples = list[dspy.Example]
Metric = Callable[..., Any]
Solve = Callable[[dspy.Example], Demonstration]
"""Returns the tool calls and the outputs that answer a labelled example."""

DEMOS = 4
DRAWS = 3


@recipe(lambda train, dev: Work(runs=(0, 0), prompt_growth=(1, 2)))
def labelled(student: dspy.Module, *, trainset: Examples, seed: int) -> dspy.Module:
    """Use it when only the form of the answer has to be learned: demos are questions with answers, without steps."""
    return LabeledFewShot(k=DEMOS).compile(student, trainset=shuffled(trainset, seed), sample=False)


@recipe(lambda train, dev: Work(runs=(0, 0), prompt_growth=(2, 4)))
def scripted(
    student: ReAct,
    *,
    trainset: Examples,
    metric: Metric,
    seed: int,
    solve: Solve | None = None,
    documents: int | None = None,
    demos: int | None = None,
) -> dspy.Module:
    """Use it for a first try, in seconds: demos are one example of each category, worked out with the real tools.

    Without categories there are four demos.

    Args:
        student: the program to compile.
        trainset: labelled examples.
        metric: the metric; a worked example that it rejects isn't shown.
        seed: the random seed.
        solve: returns the calls and the outputs for an example; by default the calls in its ``expected_tool_calls``,
            each ``{"name": …, "arguments": {…}}``, and the outputs in the fields of the signature's outputs.
        documents: the number of documents that a demo shows of each result: those that it cites, then the first others;
            ``None`` to show all. Fewer make a shorter prompt.
        demos: the number of demos, from each category in turn; ``None`` for one of each category.

    Raises:
        ConfigError: the program isn't a ``oneturn.ReAct``, no example can be worked out, or ``demos`` is below 1.
    """
    teacher, trainset = scripted_teacher(student, trainset, solve, documents)
    return work_out(student, metric, teacher, chosen(shuffled(trainset, seed), teacher, demos))


@recipe(lambda train, dev: Work(runs=(DEMOS, train), prompt_growth=(1, 3)))
def bootstrap(
    student: dspy.Module, *, trainset: Examples, metric: Metric, seed: int, teacher: dspy.LM, rounds: int = 1
) -> dspy.Module:
    """Use it with a strong LM or teacher: four fully right runs of the teacher become demos.

    Args:
        student: the program to compile.
        trainset: labelled examples.
        metric: the metric; only fully right runs become demos.
        seed: the random seed.
        teacher: the LM that works the examples out.
        rounds: how often an example is tried; from the second try on at temperature 1 (rejection sampling).
    """
    optimizer = BootstrapFewShot(**bootstrapping(metric, teacher, DEMOS), max_rounds=rounds)
    return optimizer.compile(student, trainset=shuffled(trainset, seed))


@recipe(lambda train, dev: Work(runs=((DRAWS + 1) * dev + DRAWS, (DRAWS + 2) * dev + train), prompt_growth=(1, 3)))
def bootstrap_random_search(
    student: dspy.Module,
    *,
    trainset: Examples,
    valset: Examples,
    metric: Metric,
    seed: int,
    threads: int,
    teacher: dspy.LM,
) -> dspy.Module:
    """Use it when ``bootstrap`` helps and its result varies: several sets of such demos; the best is kept."""
    optimizer = BootstrapFewShotWithRandomSearch(
        **bootstrapping(metric, teacher, DEMOS), num_candidate_programs=DRAWS, num_threads=threads
    )
    return optimizer.compile(student, trainset=shuffled(trainset, seed), valset=valset)


def bootstrapping(metric: Metric, teacher: dspy.LM, demos: int) -> dict[str, Any]:
    """Return the settings that DSPy's bootstrapping optimizers share here: only fully right runs become demos."""
    return {
        "metric": metric,
        "metric_threshold": PASS,
        "max_bootstrapped_demos": demos,
        "max_labeled_demos": 0,
        "teacher_settings": {"lm": teacher},
    }


def scripted_runs(
    student: dspy.Module, trainset: Examples, metric: Metric, seed: int, solve: Solve | None, most: int
) -> list[dict[str, Any]]:
    """Return up to ``most`` training examples that a script worked out, from each category in turn.

    Arguments and errors are those of :func:`scripted`.
    """
    teacher, trainset = scripted_teacher(student, trainset, solve)
    program = work_out(student, metric, teacher, chosen(shuffled(trainset, seed), teacher, most))
    return [dict(run) for run in program.step.demos]


def scripted_teacher(
    student: dspy.Module, trainset: Examples, solve: Solve | None, documents: int | None = None
) -> tuple[ScriptedTeacher, Examples]:
    """Return a teacher with the examples that it has a script for.

    Arguments and errors are those of :func:`scripted`.
    """
    if not isinstance(student, ReAct):
        raise ConfigError(
            f"The recipe works examples out for a oneturn.ReAct, not for a {type(student).__name__}; choose another, "
            "such as bootstrap."
        )
    if solve is None:
        outputs = list(student.signature.output_fields)
        trainset = [example for example in trainset if all(name in example for name in outputs)]
        solve = partial(_labelled_steps, outputs)
    return ScriptedTeacher(student, trainset, solve, documents), trainset


def work_out(student: dspy.Module, metric: Metric, teacher: ScriptedTeacher, examples: Examples) -> dspy.Module:
    """Return the program with those of the examples as demos whose run the metric accepts.

    Raises:
        ConfigError: there are no examples.
    """
    if not examples:
        raise ConfigError(
            "The recipe can't work out a training example: it needs examples with all outputs, and with the tool calls "
            'in expected_tool_calls, such as [{"name": "search", "arguments": {"query": "fees"}}]; or an option solve. '
            "See docs/compiling-reference.md, or choose another recipe, such as bootstrap."
        )
    optimizer = BootstrapFewShot(metric=metric, max_bootstrapped_demos=len(examples), max_labeled_demos=0)
    return optimizer.compile(student, teacher=teacher, trainset=examples)


def can_solve(teacher: ScriptedTeacher, example: dspy.Example) -> bool:
    """Whether the tools of the script return what its outputs cite."""
    with dspy.context(trace=None):
        return bool(teacher(**example.inputs()).keys())


def _labelled_steps(outputs: Sequence[str], example: dspy.Example) -> Demonstration:
    calls = [expected_call(call) for call in example.get("expected_tool_calls") or ()]
    return Demonstration({name: example[name] for name in outputs}, calls)


def chosen(examples: Examples, teacher: ScriptedTeacher, demos: int | None) -> Examples:
    """Return the first examples that the teacher can work out: its tools return what they cite.

    Args:
        examples: the examples, in the order in which they are tried.
        teacher: the teacher.
        demos: the number of examples, from each category in turn; ``None`` for one of each category. Examples without
            a category then count as ``DEMOS`` categories.

    Raises:
        ConfigError: ``demos`` is below 1.
    """
    if demos is None:
        return _one_of_each(examples, teacher)
    if demos < 1:
        raise ConfigError(f"demos is {demos}; it must be at least 1, or None for one of each category.")
    solvable = (each for each in interleave(examples, "category") if can_solve(teacher, each))
    return list(islice(solvable, demos))


def _one_of_each(examples: Examples, teacher: ScriptedTeacher) -> Examples:
    taken: Examples = []
    room: dict[str | None, int] = {None: DEMOS}
    for example in examples:
        category = example.get("category")
        if room.setdefault(category, 1) and can_solve(teacher, example):
            taken.append(example)
            room[category] -= 1
    return taken


def shuffled(examples: Examples, seed: int) -> Examples:
    """Return the examples in a random order."""
    return random.Random(seed).sample(examples, len(examples))  # noqa: S311  # not for security
