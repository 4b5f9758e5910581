"""The recipes that compile the prompts: each is one of DSPy's optimizers with settings and a cost estimate.

The first line of a recipe's docstring says when to use it. The settings keep each recipe within 270 runs of the program
for 99 training and 24 development examples: three quarters of an hour on the embedded LM, at ten seconds per run. Your
own recipe is a function like these. ``@oneturn.recipe`` declares its cost; a parameter ``teacher`` gets the LM set by
``compile.teacher``.
"""

import inspect
import random
from collections.abc import Callable
from typing import Any

import dspy
from dspy.teleprompt import GEPA, SIMBA, BootstrapFewShot, BootstrapFewShotWithRandomSearch, LabeledFewShot, MIPROv2
from dspy.teleprompt.gepa import InstructionProposer

import oneturn
from oneturn.compilation import Work, chain
from oneturn.programs.react import ScriptedTeacher, capture_run_errors
from optimizers.metric import FULLY_RIGHT
from optimizers.scripted import solve

Examples = list[dspy.Example]
Metric = Callable[..., Any]

CANDIDATES = 4
DEMOS = 4
DRAWS = 3
TRIALS = 5
SIMBA_ROWS = 12
SIMBA_BATCH = 6
SIMBA_STEPS = 2
GEPA_PASSES = 2
LONG_REPLY = 512  # tokens


@oneturn.recipe(lambda train, dev: Work(runs=(0, 0), prompt_growth=(1, 2)))
def labelled(student: dspy.Module, *, trainset: Examples, seed: int) -> dspy.Module:
    """Use it when only the form of the answer has to be learned: demos are questions with answers, without steps."""
    return LabeledFewShot(k=DEMOS).compile(student, trainset=_shuffled(trainset, seed), sample=False)


@oneturn.recipe(lambda train, dev: Work(runs=(0, 0), prompt_growth=(2, 4)))
def scripted(
    student: oneturn.ReAct, *, trainset: Examples, valset: Examples, metric: Metric, seed: int, threads: int
) -> dspy.Module:
    """Use it for a first try, in seconds: demos are one example of each category, worked out with the real tools."""
    return _with_demos(student, trainset, metric, seed)


@oneturn.recipe(lambda train, dev: Work(runs=(CANDIDATES * dev, CANDIDATES * dev), prompt_growth=(2, 4)))
def random_search(
    student: oneturn.ReAct, *, trainset: Examples, valset: Examples, metric: Metric, seed: int, threads: int
) -> dspy.Module:
    """Use it when half an hour is acceptable: several random sets of such demos, scored on the development set."""
    first = seed * CANDIDATES
    candidates = [_with_demos(student, trainset, metric, draw) for draw in range(first, first + CANDIDATES)]
    evaluate = dspy.Evaluate(devset=valset, metric=metric, num_threads=threads, display_progress=True)
    return max(candidates, key=lambda candidate: evaluate(candidate).score)


@oneturn.recipe(lambda train, dev: Work(runs=(DEMOS, train), prompt_growth=(1, 3)))
def bootstrap(
    student: dspy.Module,
    *,
    trainset: Examples,
    valset: Examples,
    metric: Metric,
    seed: int,
    threads: int,
    teacher: dspy.LM,
) -> dspy.Module:
    """Use it with a strong LM or teacher: four fully right runs of the teacher become demos."""
    optimizer = BootstrapFewShot(
        metric=metric,
        metric_threshold=FULLY_RIGHT,
        max_bootstrapped_demos=DEMOS,
        max_labeled_demos=0,
        teacher_settings={"lm": teacher},
    )
    return optimizer.compile(student, trainset=_shuffled(trainset, seed))


@oneturn.recipe(
    lambda train, dev: Work(runs=((DRAWS + 1) * dev + DRAWS, (DRAWS + 2) * dev + train), prompt_growth=(1, 3))
)
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
        metric=metric,
        metric_threshold=FULLY_RIGHT,
        max_bootstrapped_demos=DEMOS,
        max_labeled_demos=0,
        num_candidate_programs=DRAWS,
        num_threads=threads,
        teacher_settings={"lm": teacher},
    )
    return optimizer.compile(student, trainset=_shuffled(trainset, seed), valset=valset)


@oneturn.recipe(
    lambda train, dev: Work(runs=(TRIALS * dev, (TRIALS + 1) * dev + train), reflections=(5, 20), prompt_growth=(1, 3))
)
def miprov2(
    student: dspy.Module,
    *,
    trainset: Examples,
    valset: Examples,
    metric: Metric,
    seed: int,
    threads: int,
    teacher: dspy.LM,
) -> dspy.Module:
    """Use it with a good teacher: instructions and demos are proposed separately and searched together (Bayesian)."""
    optimizer = MIPROv2(
        metric=metric,
        metric_threshold=FULLY_RIGHT,
        prompt_model=_with_long_replies(teacher),
        teacher_settings={"lm": teacher},
        auto=None,
        num_candidates=DRAWS,
        max_bootstrapped_demos=2,
        max_labeled_demos=0,
        num_threads=threads,
        seed=seed,
    )
    return optimizer.compile(
        student,
        trainset=trainset,
        valset=valset,
        num_trials=TRIALS,
        minibatch=False,
        seed=seed,
        # The proposer would put the source code of ReAct into each prompt, which doesn't describe this agent.
        program_aware_proposer=not isinstance(student, oneturn.ReAct),
    )


@oneturn.recipe(
    lambda train, dev: Work(
        runs=(
            SIMBA_STEPS * DRAWS * min(train, SIMBA_BATCH),
            SIMBA_STEPS * ((2 * DRAWS + 1) * min(train, SIMBA_BATCH) + 2 * min(train, SIMBA_ROWS) + dev),
        ),
        reflections=(0, SIMBA_STEPS * (DRAWS + 1)),
        prompt_growth=(1, 3),
    )
)
def simba(
    student: dspy.Module,
    *,
    trainset: Examples,
    valset: Examples,
    metric: Metric,
    seed: int,
    threads: int,
    teacher: dspy.LM,
) -> dspy.Module:
    """Use it when the LM is sometimes right and sometimes wrong: rules and demos come from the differences."""
    optimizer = SIMBA(
        metric=metric,
        bsize=min(SIMBA_BATCH, len(trainset)),
        num_candidates=DRAWS,
        max_steps=1,
        max_demos=DEMOS,
        prompt_model=_with_long_replies(teacher),
        num_threads=threads,
    )
    # SIMBA doesn't measure with dspy.Evaluate, so the budget doesn't see its candidates. Run one step at a time, and
    # evaluate the program of each step on the development set.
    evaluate = dspy.Evaluate(devset=valset, metric=metric, num_threads=threads, display_progress=True)
    best, score = student, evaluate(student).score
    for draw in range(seed * SIMBA_STEPS, (seed + 1) * SIMBA_STEPS):
        candidate = optimizer.compile(best, trainset=_shuffled(trainset, draw)[:SIMBA_ROWS], seed=draw)
        if (candidate_score := evaluate(candidate).score) > score:
            best, score = candidate, candidate_score
    return best


@oneturn.recipe(
    lambda train, dev: Work(
        runs=(dev, GEPA_PASSES * (train + dev) + dev), reflections=(1, GEPA_PASSES * (train + dev) // 6)
    )
)
def gepa(
    student: dspy.Module,
    *,
    trainset: Examples,
    valset: Examples,
    metric: Metric,
    seed: int,
    threads: int,
    teacher: dspy.LM,
) -> dspy.Module:
    """Use it when the metric explains errors in words, and the teacher can reason: it rewrites the instructions."""
    optimizer = GEPA(
        metric=_with_feedback(metric),
        max_full_evals=GEPA_PASSES,
        reflection_lm=_with_long_replies(teacher),
        instruction_proposer=_instruction_proposer(student),
        num_threads=threads,
        seed=seed,
    )
    with capture_run_errors():
        return optimizer.compile(student, trainset=trainset, valset=valset)


def _with_long_replies(teacher: dspy.LM) -> dspy.LM:
    """Raise ``max_tokens`` for writing instructions: the agent's own LM may be limited to the length of a step."""
    limit = teacher.kwargs.get("max_tokens")
    return teacher.copy(max_tokens=LONG_REPLY) if limit is not None and limit < LONG_REPLY else teacher


def _with_feedback(metric: Metric) -> Metric:
    """Adapt the metric to GEPA's five arguments; a metric with fewer arguments gives its score only."""
    try:
        inspect.signature(metric).bind(*[None] * 5)
    except TypeError:
        return lambda gold, pred, trace=None, pred_name=None, pred_trace=None: metric(gold, pred)
    return metric


def _instruction_proposer(student: dspy.Module) -> InstructionProposer | None:
    """Build DSPy's proposer with the rest of the prompt, so that new instructions don't repeat the tools."""
    if not isinstance(student, oneturn.ReAct):
        return None
    context = f"The prompt contains this text after your instruction. Don't repeat it.\n\n{student.protocol()}"
    return InstructionProposer(additional_instructions=context)


def _with_demos(student: oneturn.ReAct, trainset: Examples, metric: Metric, seed: int) -> dspy.Module:
    teacher = ScriptedTeacher(student, trainset, solve)
    examples = _one_of_each(_shuffled(trainset, seed), teacher)
    optimizer = BootstrapFewShot(metric=metric, max_bootstrapped_demos=len(examples), max_labeled_demos=0)
    return optimizer.compile(student, teacher=teacher, trainset=examples)


def _one_of_each(examples: Examples, teacher: ScriptedTeacher) -> Examples:
    """Return the first example of each category that the teacher can work out: its tools return what it cites."""
    first: dict[str, dspy.Example] = {}
    for example in examples:
        if example.category not in first:
            with dspy.context(trace=None):
                prediction = teacher(**example.inputs())
            if prediction.keys():
                first[example.category] = example
    return list(first.values())


def _shuffled(examples: Examples, seed: int) -> Examples:
    return random.Random(seed).sample(examples, len(examples))  # noqa: S311  # not for security


RECIPES: dict[str, Callable[..., dspy.Module]] = {
    "labelled": labelled,
    "scripted": scripted,
    "random_search": random_search,
    "bootstrap": bootstrap,
    "bootstrap_random_search": bootstrap_random_search,
    "miprov2": miprov2,
    "simba": simba,
    "gepa": gepa,
    "scripted_then_gepa": chain(
        scripted,
        gepa,
        when="Use it when both are worth it: demos show the steps, GEPA improves the instructions for the rest.",
    ),
}
