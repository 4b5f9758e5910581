"""Recipes that rewrite instructions; some of them also select demos."""

from __future__ import annotations

import inspect
from typing import Any

import dspy
from dspy.teleprompt import GEPA, SIMBA, MIPROv2
from dspy.teleprompt.gepa import InstructionProposer
from gepa.strategies.proposal_sampling import PxNSampling

from oneturn.compilation.recipes.demos import DEMOS, DRAWS, Examples, Metric, shuffled
from oneturn.compilation.recipes.work import Work, recipe
from oneturn.errors import ConfigError
from oneturn.evaluation.scorers.base import PASS
from oneturn.programs.react import ReAct, capture_run_errors

TRIALS = 5
SIMBA_ROWS = 12
SIMBA_BATCH = 6
SIMBA_STEPS = 2
GEPA_PASSES = 2
LONG_REPLY = 512  # tokens


@recipe(
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
    demos: int = 2,
    candidates: int = DRAWS,
    trials: int = TRIALS,
) -> dspy.Module:
    """Use it with a good teacher: instructions and demos are proposed separately and searched together (Bayesian).

    Args:
        student: the program to compile.
        trainset: labelled examples.
        valset: the development examples.
        metric: the metric.
        seed: the random seed.
        threads: number of examples to run in parallel.
        teacher: the LM that proposes instructions and works examples out.
        demos: the maximum number of demos: sets of none and of any number up to it are searched.
        candidates: the number of instructions and of sets of demos.
        trials: the number of combinations that are scored. The estimate is that of the default.
    """
    optimizer = MIPROv2(
        metric=metric,
        metric_threshold=PASS,
        prompt_model=_with_long_replies(teacher),
        teacher_settings={"lm": teacher},
        auto=None,
        num_candidates=candidates,
        max_bootstrapped_demos=demos,
        max_labeled_demos=0,
        num_threads=threads,
        seed=seed,
    )
    return optimizer.compile(
        student,
        trainset=trainset,
        valset=valset,
        num_trials=trials,
        minibatch=False,
        seed=seed,
        # The proposer would put the source code of ReAct into each prompt, which doesn't describe this agent.
        program_aware_proposer=not isinstance(student, ReAct),
    )


@recipe(
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
        candidate = optimizer.compile(best, trainset=shuffled(trainset, draw)[:SIMBA_ROWS], seed=draw)
        if (candidate_score := evaluate(candidate).score) > score:
            best, score = candidate, candidate_score
    return best


@recipe(
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
    parents: int = 1,
    mutations: int = 1,
) -> dspy.Module:
    """Use it when the metric explains errors in words, and the teacher can reason: it rewrites the instructions.

    The teacher (``compile.teacher``) reflects on failed runs. Without one the agent's LM reflects on its own, which
    LMs of a few billion parameters can't.

    Args:
        student: the program to compile.
        trainset: labelled examples.
        valset: the development examples.
        metric: the metric; its feedback on one predictor tells the teacher what was wrong.
        seed: the random seed.
        threads: number of examples to run in parallel; proposals are scored in parallel, too.
        teacher: the LM that reflects and proposes.
        parents: the number of candidates that each iteration starts from.
        mutations: the number of proposals for each of them. The number of runs stays the same, with fewer iterations.

    Raises:
        ConfigError: ``parents`` or ``mutations`` is below 1.
    """
    optimizer = GEPA(
        metric=_with_feedback(metric),
        max_full_evals=GEPA_PASSES,
        reflection_lm=_with_long_replies(teacher),
        instruction_proposer=_instruction_proposer(student),
        num_threads=threads,
        seed=seed,
        gepa_kwargs=_sampling(parents, mutations),
    )
    with capture_run_errors():
        return optimizer.compile(student, trainset=trainset, valset=valset)


def _sampling(parents: int, mutations: int) -> dict[str, Any]:
    """Return GEPA's setting for several proposals per iteration; none for its default of one."""
    if min(parents, mutations) < 1:
        raise ConfigError(f"gepa needs at least 1 parent and 1 mutation; got {parents} and {mutations}.")
    return {"sampling_strategy": PxNSampling(parents, mutations)} if parents * mutations > 1 else {}


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
    if not isinstance(student, ReAct):
        return None
    context = f"The prompt contains this text after your instruction. Don't repeat it.\n\n{student.protocol()}"
    return InstructionProposer(additional_instructions=context)
