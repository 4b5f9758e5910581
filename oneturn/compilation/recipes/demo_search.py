"""The recipe that compares random sets of demos, and adds examples of what the best set is weakest in."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice

import dspy

from oneturn.compilation.recipes.demos import (
    Examples,
    Metric,
    Solve,
    can_solve,
    chosen,
    scripted_teacher,
    shuffled,
    work_out,
)
from oneturn.compilation.recipes.work import Work, recipe
from oneturn.errors import ApprovalRequired
from oneturn.programs.react import ReAct, ScriptedTeacher

CANDIDATES = 4
WEAKEST = 2
"""Categories of which a set gets one more example, each in a set of its own."""


@recipe(lambda train, dev: Work(runs=(CANDIDATES * dev, CANDIDATES * dev), prompt_growth=(2, 4)))
def random_search(
    student: ReAct,
    *,
    trainset: Examples,
    valset: Examples,
    metric: Metric,
    seed: int,
    threads: int,
    solve: Solve | None = None,
    draws: int = CANDIDATES,
    screen: int = 0,
    documents: int | None = None,
    demos: int | None = None,
    more: int = 0,
) -> dspy.Module:
    """Use it when half an hour is acceptable: several random sets of such demos, scored on the development set.

    Args:
        student: the program to compile.
        trainset: labelled examples.
        valset: the development examples.
        metric: the metric.
        seed: the random seed.
        threads: number of examples to run in parallel.
        solve: as of :func:`scripted`, whose errors are raised, too.
        draws: the number of sets of demos. The estimate is that of the default.
        screen: if there are more than four sets, compare them first on so many training examples, those that tell the
            first three sets apart best, and score the best four on the development set; 0 to score all sets on it.
        documents: as of :func:`scripted`.
        demos: as of :func:`scripted`.
        more: how often the best set is tried with one more example: of each of the two weakest categories that have
            another one, in a set of its own. It ends when no such set is better, or all are fully right. It needs a
            ``category`` in both splits. These runs, at most two sets each time, aren't in the estimate.
    """
    teacher, solvable = scripted_teacher(student, trainset, solve, documents)
    first = seed * draws
    orders = [shuffled(solvable, draw) for draw in range(first, first + draws)]
    sets = [chosen(order, teacher, demos) for order in orders]
    candidates = [
        _Candidate(work_out(student, metric, teacher, examples), examples, order)
        for examples, order in zip(sets, orders, strict=True)
    ]
    if screen and draws > CANDIDATES:
        candidates = _screen(candidates, shuffled(trainset, seed), metric, threads, screen)
    evaluate = dspy.Evaluate(devset=valset, metric=metric, num_threads=threads, display_progress=True)
    scored = [_Scored(candidate, evaluate(candidate.program)) for candidate in candidates]
    best = max(scored, key=lambda each: each.score)
    for _ in range(more):
        extend = partial(work_out, student, metric, teacher)
        longer = islice(_with_one_more(best, teacher, extend), WEAKEST)
        scored = [_Scored(candidate, evaluate(candidate.program)) for candidate in longer]
        better = [each for each in scored if each.score > best.score]
        if not better:
            break
        best = max(better, key=lambda each: each.score)
    return best.candidate.program


@dataclass(frozen=True)
class _Candidate:
    """A program with a set of demos.

    Attributes:
        program: the program.
        examples: the examples of its demos.
        order: all examples in the order of its draw.
    """

    program: dspy.Module
    examples: Examples
    order: Examples


@dataclass(frozen=True)
class _Scored:
    """A candidate with its scores of the development examples, and their mean."""

    candidate: _Candidate
    result: dspy.Prediction

    @property
    def score(self) -> float:
        """The mean, 0 to 100."""
        return float(self.result.score)

    def by_category(self) -> Mapping[str | None, float]:
        """The mean score of each category, 0 to 1, from the lowest one."""
        scores = defaultdict(list)
        for example, _, score in self.result.results:
            scores[example.get("category")].append(float(score))
        means = {category: statistics.fmean(each) for category, each in scores.items()}
        return dict(sorted(means.items(), key=lambda item: item[1]))


def _with_one_more(
    best: _Scored, teacher: ScriptedTeacher, extend: Callable[[Examples], dspy.Module]
) -> Iterator[_Candidate]:
    """Yield the set with another example of each category that isn't fully right, from the weakest one.

    The example stands in the middle: a small LM follows the last demos most.
    """
    examples, order = best.candidate.examples, best.candidate.order
    shown = [example.inputs().toDict() for example in examples]
    middle = len(examples) // 2
    for category, score in best.by_category().items():
        if score >= 1:
            continue
        for example in order:
            if example.get("category") != category or example.inputs().toDict() in shown:
                continue
            if not _is_solved(teacher, example):
                continue
            longer = [*examples[:middle], example, *examples[middle:]]
            program = extend(longer)
            if len(program.step.demos) > len(best.candidate.program.step.demos):  # the metric accepts the example
                yield _Candidate(program, longer, order)
                break


def _is_solved(teacher: ScriptedTeacher, example: dspy.Example) -> bool:
    """Return whether an example can be worked out; one that waits for a person must not end a search so late."""
    try:
        return can_solve(teacher, example)
    except ApprovalRequired:
        return False


def _screen(
    candidates: list[_Candidate], examples: Examples, metric: Metric, threads: int, rows: int
) -> list[_Candidate]:
    """Return the best candidates on the examples that tell some of them apart best, and that none shows as a demo."""
    shown = [demo for candidate in candidates for demo in candidate.program.step.demos]
    unseen = [
        example
        for example in examples
        if not any(all(demo.get(name) == value for name, value in example.inputs().items()) for demo in shown)
    ]

    def scores(candidate: _Candidate, on: Examples) -> list[float]:
        evaluate = dspy.Evaluate(devset=on, metric=metric, num_threads=threads, display_progress=True)
        return [float(score) for *_, score in evaluate(candidate.program).results]

    if len(unseen) <= rows:
        telling = unseen
    else:
        probed = [scores(candidate, unseen[: 3 * rows]) for candidate in candidates[:3]]
        spread = [statistics.pvariance(each) for each in zip(*probed, strict=True)]
        places = sorted(sorted(range(len(spread)), key=lambda place: -spread[place])[:rows])
        telling = [unseen[place] for place in places]
    if not telling:
        return candidates[:CANDIDATES]
    means = [statistics.fmean(scores(candidate, telling)) for candidate in candidates]
    ranked = sorted(range(len(candidates)), key=lambda index: -means[index])
    return [candidates[index] for index in ranked[:CANDIDATES]]
