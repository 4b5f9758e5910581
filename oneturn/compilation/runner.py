"""Compile an agent: measure it, let a recipe work on it, measure it again, keep what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import dspy
from dspy.utils.exceptions import DSPyError

from oneturn.agent import Agent
from oneturn.compilation.budget import BudgetSpent
from oneturn.compilation.callbacks import CompileCallback
from oneturn.compilation.plan import Plan
from oneturn.compilation.recipes import Estimate, estimate, work_of
from oneturn.compilation.result import Compilation
from oneturn.compilation.session import LMUnreachable, Session, outages_raised
from oneturn.config import BudgetConfig
from oneturn.datasets.rows import dataset_hash
from oneturn.errors import ConfigError, LMUnavailableError, OneTurnError, ProgramError
from oneturn.evaluation.result import Evaluation
from oneturn.programs.state import Manifest, save_compiled
from oneturn.programs.state.interface import interface_of

if TYPE_CHECKING:
    pass

PROBE = 5
"""Questions that an estimate rests on."""


def compile(
    agent: Agent,
    *,
    recipe: str | None = None,
    save_to: Path | None = None,
    budget: BudgetConfig | None = None,
    fresh: bool = False,
    listeners: Sequence[CompileCallback] = (),
) -> Compilation:
    """Compile ``agent``'s program with a recipe and save it.

    Every answer of an LM is written down as it comes. A compile that was interrupted, or killed, goes on where it was
    when it is started again: no answer is paid for twice, and the program is the one that it would have been.

    Args:
        agent: what to compile; its configuration names LM, recipe, seed and budget.
        recipe: the recipe's name; ``None`` for the configured one.
        save_to: where to save; ``None`` for the configured place.
        budget: what it may cost; ``None`` for the configured budget. At the limit it ends with the best program that
            was measured on all development examples.
        fresh: forget what earlier starts of this compile were answered.
        listeners: who is told what happens.

    Raises:
        ConfigError: there is no recipe of that name, or it wants or gives what no recipe can; or the budget didn't even
            last for the uncompiled program, or is one of money where no price is known.
        DataError: what earlier starts were answered can't be read.
        LMUnavailableError: the LM can't be asked any more. Nothing is saved but its answers.
        ProgramError: the uncompiled program fails on each question before it asks its LM.
        OneTurnError: the recipe can't go on with what the LM has replied; or the same compile is at work elsewhere.
    """
    plan = Plan.of(agent, recipe)
    path = save_to or agent.compiled_path
    session = _begin(plan, budget, fresh, listeners)
    try:
        compilation = _watched(plan, session, path)
    except BaseException as error:  # whoever interrupts it, too
        session.tell("on_interrupted", error)
        raise
    finally:
        session.close()
    return replace(compilation, _trace=None)


def estimate_compile(agent: Agent, *, recipe: str | None = None, budget: BudgetConfig | None = None) -> Estimate | None:
    """What compiling would cost, from a few questions that are asked for it; ``None`` if the recipe doesn't say.

    What they are answered is written down, and not asked again by the compile.

    Raises:
        ConfigError: there is no recipe of that name; or the budget didn't last.
        LMUnavailableError: the LM can't be asked any more.
    """
    plan = Plan.of(agent, recipe)
    session = _begin(plan, budget, fresh=False, listeners=())
    try:
        with outages_raised():
            return _expected(plan, session)
    except LMUnreachable as gone:
        raise _gone(gone) from gone.__cause__
    finally:
        session.close()


def _gone(gone: LMUnreachable) -> LMUnavailableError:
    kept = "Every answer so far is kept: when it is there again, the same command goes on from here."
    return LMUnavailableError(f"The LM can't be asked any more: {gone}. {kept}")


def _begin(plan: Plan, budget: BudgetConfig | None, fresh: bool, listeners: Sequence[CompileCallback]) -> Session:
    settings = plan.agent.config.compile
    limits = budget or settings.budget
    return Session(plan.folder, plan.lm, plan.devset, plan.agent.metric, limits, settings.threads, listeners, fresh)


def _expected(plan: Plan, session: Session) -> Estimate | None:
    work = work_of(plan.optimize, len(plan.trainset), len(plan.devset))
    if work is None:
        return None
    probe = _baseline(plan, session, rows=PROBE)
    threads = plan.agent.config.compile.threads
    spent = session.journal.totals
    price = spent.cost / spent.tokens if spent.cost is not None and spent.tokens else None
    return estimate(work, len(plan.devset), probe, price, threads)


def _baseline(plan: Plan, session: Session, rows: int | None = None) -> Evaluation:
    try:
        measured = session.measure(plan.student, rows)
    except BudgetSpent as spent:
        raise ConfigError(
            f"The budget of {spent} was spent before the uncompiled program was measured. Raise compile.budget: the "
            "same command goes on from here."
        ) from None
    if session.budget.holds_nothing_in_money and plan.teacher is plan.lm:
        raise ConfigError(
            f"compile.budget.cost can't hold: no price of {plan.lm.model} is known. Limit lm_calls, tokens or minutes "
            "instead: what was answered is kept."
        )
    _check_that_it_asks(measured)
    return measured


def _check_that_it_asks(measured: Evaluation) -> None:
    rows = measured.rows
    if rows["error"].notna().all() and not rows["lm_calls"].any():
        raise ProgramError(
            f"The uncompiled program failed on each of {len(rows)} questions before it asked its LM, first with "
            f"{rows['error'].iloc[0]}. Mend it, and compile it then."
        )


def _watched(plan: Plan, session: Session, path: Path) -> Compilation:
    """The compile, told to its listeners."""
    session.tell_spent_before()
    try:
        with outages_raised():
            expected = _expected(plan, session)
        session.tell("on_start", plan.agent, plan.recipe, session.journal.id, expected)
        with outages_raised():
            compilation = _compiled(plan, session, path, expected)
    except LMUnreachable as gone:
        raise _gone(gone) from gone.__cause__
    session.tell("on_end", compilation)
    return compilation


def _compiled(plan: Plan, session: Session, path: Path, expected: Estimate | None) -> Compilation:
    before = _baseline(plan, session)
    session.measured(plan.student, before.rows["score"].tolist(), full=True)
    stopped = None
    try:
        with session.optimizing(plan.teacher) as teacher:
            program = _optimized(plan, teacher)
        after = session.measure(program)
        session.measured(program, after.rows["score"].tolist(), full=True)
        kept = session.candidates[-1]
    except BudgetSpent as spent:
        stopped = str(spent)
        kept = session.best
        program = kept.program
        session.budget.close(f"the budget of {stopped} is spent")
        after = session.measure(program)
    manifest = _manifest(plan, session, before, after, expected, stopped)
    save_compiled(program, manifest, path)
    return Compilation(
        program, manifest, before, after, path, tuple(session.candidates), kept.number, stopped, session.trace
    )


def _optimized(plan: Plan, teacher: dspy.LM) -> dspy.Module:
    try:
        return plan.run(teacher)
    except DSPyError as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise OneTurnError(
            f"The recipe {plan.recipe!r} failed on a reply of {teacher.model} ({reason}). "
            "Take a stronger compile.teacher, another compile.seed or another recipe."
        ) from error


def _manifest(
    plan: Plan,
    session: Session,
    before: Evaluation,
    after: Evaluation,
    expected: Estimate | None,
    stopped: str | None,
) -> Manifest:
    spent = session.journal.totals
    cost = {} if spent.cost is None else {"cost": spent.cost}
    return Manifest(
        recipe=plan.recipe,
        lm=plan.lm.model,
        seed=plan.agent.config.compile.seed,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        versions={package: version(package) for package in ("oneturn", "dspy", "mlflow")},
        dataset={"train": dataset_hash(plan.rows(plan.trainset)), "dev": dataset_hash(plan.rows(plan.devset))},
        scores={"before": _scores(before), "after": _scores(after)},
        spend={
            "lm_calls": float(spent.lm_calls),
            "prompt_tokens": float(spent.prompt_tokens),
            "completion_tokens": float(spent.completion_tokens),
            "seconds": round(session.journal.seconds, 1),
            **cost,
        },
        estimate=expected.to_dict() if expected is not None else None,
        stopped=stopped,
        interface=interface_of(plan.student),
    )


def _scores(found: Evaluation) -> dict[str, float]:
    """What a person reviews: the score with its interval, and what a row takes."""
    told = found.summary()
    wanted = [
        "score",
        "score_low",
        "score_high",
        "rows",
        "errors",
        *(name for name in told if name.endswith("_per_row")),
    ]
    return {name: told[name] for name in wanted if name != "tries_per_row"}
