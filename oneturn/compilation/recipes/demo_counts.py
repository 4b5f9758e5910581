"""Recipes about how many demos a prompt has, and which: a curve of counts, and demos chosen per question."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import dspy
from dspy.teleprompt import BootstrapFewShot

from oneturn.compilation.recipes.demos import Examples, Metric, Solve, bootstrapping, scripted_runs, shuffled
from oneturn.compilation.recipes.work import Work, recipe
from oneturn.datasets import interleave
from oneturn.errors import ConfigError
from oneturn.programs.react import DemoPool, ReAct

_log = logging.getLogger(__name__)

COUNTS = (2, 4, 8)
POOL_K = 3
POOL_RUNS = 40
"""Training examples that are worked out for a pool, from each category in turn."""


@recipe(lambda train, dev: Work(runs=(len(COUNTS) * dev, len(COUNTS) * dev + train), prompt_growth=(1.5, 5)))
def demo_curve(
    student: dspy.Module,
    *,
    trainset: Examples,
    valset: Examples,
    metric: Metric,
    seed: int,
    threads: int,
    teacher: dspy.LM,
    solve: Solve | None = None,
    scripted: bool = False,
    counts: Sequence[int] = COUNTS,
    rounds: int = 1,
    repairs: int = 0,
) -> dspy.Module:
    """Use it to see what demos are worth: programs with 2, 4 and 8 demos beside the uncompiled one, on the front.

    Args:
        student: the program to compile.
        trainset: labelled examples.
        valset: the development examples that each program is scored on.
        metric: the metric; only fully right runs become demos.
        seed: the random seed.
        threads: number of examples to run in parallel.
        teacher: the LM that works the examples out, unless they are scripted.
        solve: returns the calls and the outputs for an example; implies ``scripted``.
        scripted: work the examples out by a script with the real tools, as the recipe ``scripted`` does.
        counts: the numbers of demos.
        rounds: how often the LM tries an example, from the second try on at temperature 1.
        repairs: the number of runs with a repaired mistake (a failed call, then a right answer) that come first, as
            far as there are any.

    Raises:
        ConfigError: no example could be worked out by the script. If the LM can't, it is logged, and there are no
            demos.
    """
    if solve is not None or scripted:
        runs = scripted_runs(student, trainset, metric, seed, solve, max(counts))
    else:
        runs = _worked_runs(student, trainset, metric, seed, teacher, rounds, None if repairs else max(counts))
    runs = _with_repairs_first(runs, repairs)
    evaluate = dspy.Evaluate(devset=valset, metric=metric, num_threads=threads, display_progress=True)
    candidates = []
    for count in dict.fromkeys(min(count, len(runs)) for count in counts):
        candidate = student.deepcopy()
        _predictor(candidate).demos = [dict(run) for run in runs[:count]]
        candidates.append((evaluate(candidate).score, -count, candidate))
    return max(candidates, key=lambda scored: scored[:2])[2]


@recipe(lambda train, dev: Work(runs=(1, min(train, POOL_RUNS)), prompt_growth=(1.5, 4)))
def demos_per_question(
    student: ReAct,
    *,
    trainset: Examples,
    metric: Metric,
    seed: int,
    teacher: dspy.LM,
    solve: Solve | None = None,
    scripted: bool = False,
    k: int = POOL_K,
    fixed: int = 1,
    rounds: int = 1,
) -> dspy.Module:
    """Use it when questions differ much: each gets the most similar worked runs as demos (BM25), behind a fixed one.

    The prompt then changes with the question behind the fixed demos, so that an LM's prompt cache covers less of it.

    Args:
        student: the program to compile.
        trainset: labelled examples; up to 40 are worked out, from each category in turn.
        metric: the metric; only fully right runs become demos.
        seed: the random seed.
        teacher: the LM that works the examples out, unless they are scripted.
        solve: returns the calls and the outputs for an example; implies ``scripted``.
        scripted: work the examples out by a script with the real tools, as the recipe ``scripted`` does.
        k: the number of demos chosen per question.
        fixed: the number of demos that every question gets first.
        rounds: how often the LM tries an example, from the second try on at temperature 1.

    Raises:
        ConfigError: the program isn't a ``oneturn.ReAct``, or no example could be worked out by the script. If the LM
            can't, it is logged, and there are no demos.
    """
    if not isinstance(student, ReAct):
        raise ConfigError(
            f"Demos are chosen per question for a oneturn.ReAct, not for a {type(student).__name__}; choose another "
            "recipe, such as bootstrap."
        )
    if solve is not None or scripted:
        runs = scripted_runs(student, trainset, metric, seed, solve, POOL_RUNS)
    else:
        examples = interleave(shuffled(trainset, seed), "category")[:POOL_RUNS]
        runs = _worked_runs(student, examples, metric, seed, teacher, rounds, None)
    program = student.deepcopy()
    program.step.demos = runs[:fixed]
    rest = runs[fixed:]
    program.demo_pool = DemoPool(rest, list(program.signature.input_fields), k) if rest else None
    return program


def _worked_runs(
    student: dspy.Module,
    trainset: Examples,
    metric: Metric,
    seed: int,
    teacher: dspy.LM,
    rounds: int,
    most: int | None,
) -> list[dict[str, Any]]:
    """Return the teacher's right runs, from each category in turn, so that refusals are among them, too.

    Args:
        student: the program.
        trainset: labelled examples.
        metric: the metric.
        seed: the random seed.
        teacher: the LM.
        rounds: how often an example is tried.
        most: stop after so many runs; ``None`` to try all examples.
    """
    examples = interleave(shuffled(trainset, seed), "category")
    optimizer = BootstrapFewShot(**bootstrapping(metric, teacher, most or len(examples)), max_rounds=rounds)
    runs = [dict(run) for run in _predictor(optimizer.compile(student, trainset=examples)).demos]
    if not runs:
        _log.warning(
            "The LM %s answered none of the %d training examples fully right, so there are no demos. Set a stronger "
            "compile.teacher, raise the option rounds, or choose another recipe.",
            teacher.model,
            len(examples),
        )
    return runs


def _predictor(program: dspy.Module) -> dspy.Predict:
    """Return the predictor of a program that has one; of several, the first."""
    return program.predictors()[0]


def _with_repairs_first(runs: list[dict[str, Any]], repairs: int) -> list[dict[str, Any]]:
    repaired = [run for run in runs if _has_failed_call(run)][:repairs]
    return [*repaired, *(run for run in runs if not any(run is each for each in repaired))]


def _has_failed_call(run: dict[str, Any]) -> bool:
    """Whether a call of the run failed: the result of a failed call is an error line."""
    return any(str(turn.get("observation", "")).startswith("Error: ") for turn in run.get("trajectory") or ())
