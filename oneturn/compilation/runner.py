"""Compile an agent: measure the program, run a recipe, measure the result and save it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import dspy
from dspy.utils.exceptions import DSPyError

from oneturn.agent import Agent
from oneturn.compilation.budget import BudgetSpent
from oneturn.compilation.callbacks import CompileCallback
from oneturn.compilation.journal import JournalUnwritable
from oneturn.compilation.plan import Plan
from oneturn.compilation.recipes.work import Estimate, estimate, work_of
from oneturn.compilation.result import Compilation
from oneturn.compilation.session import LMUnreachable, Session, raise_outages
from oneturn.config import BudgetConfig
from oneturn.datasets.rows import dataset_hash
from oneturn.errors import ConfigError, LMUnavailableError, OneTurnError, ProgramError
from oneturn.evaluation.approval import ApprovalPolicy
from oneturn.evaluation.result import Evaluation
from oneturn.programs.react import ReAct
from oneturn.programs.state import Manifest, compiled_interface, finish_order_of, save_compiled, thoughts_of

_log = logging.getLogger(__name__)
_RUN_COLUMNS = ("pred_tool_calls", "pred_sources", "pred_approvals", "pred_trajectory")
"""The ``pred_…`` columns that a run without an answer has, too."""
PROBE = 5
"""Number of development examples that an estimate is based on."""


def compile(
    agent: Agent,
    *,
    recipe: str | None = None,
    save_to: Path | None = None,
    budget: BudgetConfig | None = None,
    fresh: bool = False,
    callbacks: Sequence[CompileCallback] = (),
    approve: ApprovalPolicy | None = None,
) -> Compilation:
    """Compile ``agent``'s program with a recipe and save it.

    Each LM answer is written to a journal as it arrives. A compile that was interrupted or killed resumes when it is
    started again: no answer is paid for twice, and the resulting program is the same.

    Args:
        agent: the agent to compile; its configuration names LM, recipe, seed and budget.
        recipe: name of the recipe; ``None`` for the configured one.
        save_to: path of the compiled program; ``None`` for that of the agent.
        budget: limits of the cost; ``None`` for the configured budget. At a limit, the compile ends with the best
            program that was measured on all development examples.
        fresh: discard the answers recorded by earlier runs of this compile.
        callbacks: notified of the start, each candidate, the usage and the end.
        approve: decides on each tool call that needs a person's approval, of students and teachers alike. Without it no
            such call is run, and the run fails with ``approval_required``.

    Returns:
        The compiled program with its manifest and its evaluations.

    Raises:
        ConfigError: no recipe has that name, or its parameters or return value are wrong; or the budget ran out before
            the uncompiled program was measured, or limits the cost of an LM without a known price.
        DataError: the journal of an earlier run can't be read.
        LMUnavailableError: the LM is unavailable. Only its answers so far are saved.
        ProgramError: the uncompiled program fails on every question before it calls its LM, or the metric fails on
            every answer.
        OneTurnError: the recipe failed on a reply of the LM; another process is running the same compile; or the
            journal or the program can't be written.
    """
    plan = Plan.of(agent, recipe)
    path = save_to or agent.compiled_path
    session = _open_session(plan, budget, fresh, callbacks, approve)
    try:
        compilation = _run_with_callbacks(plan, session, path)
    except BaseException as error:  # includes KeyboardInterrupt
        session.notify("on_interrupted", error)
        raise
    finally:
        session.close()
    return replace(compilation, _trace=None)


def estimate_compile(
    agent: Agent,
    *,
    recipe: str | None = None,
    budget: BudgetConfig | None = None,
    approve: ApprovalPolicy | None = None,
) -> Estimate | None:
    """Estimate the cost of a compile by running the uncompiled program on a few development examples.

    The answers are recorded, and the compile reuses them.

    Returns:
        The estimate; ``None`` if the recipe doesn't declare its work.

    Raises:
        ConfigError: no recipe has that name; or the budget ran out.
        LMUnavailableError: the LM is unavailable.
    """
    plan = Plan.of(agent, recipe)
    session = _open_session(plan, budget, fresh=False, callbacks=(), approve=approve)
    try:
        with raise_outages():
            return _estimate(plan, session)
    except LMUnreachable as error:
        raise _to_unavailable_error(error) from error.__cause__
    except JournalUnwritable as error:
        raise OneTurnError(str(error)) from error.__cause__
    finally:
        session.close()


def _to_unavailable_error(error: LMUnreachable) -> LMUnavailableError:
    hint = "All answers so far are saved: run the same command again to resume."
    return LMUnavailableError(f"The LM is unavailable: {error}. {hint}")


def _open_session(
    plan: Plan,
    budget: BudgetConfig | None,
    fresh: bool,
    callbacks: Sequence[CompileCallback],
    approve: ApprovalPolicy | None,
) -> Session:
    settings = plan.agent.config.compile
    limits = budget or settings.budget
    return Session(
        plan.folder, plan.lm, plan.devset, plan.agent.metric, limits, settings.threads, callbacks, fresh, approve
    )


def _estimate(plan: Plan, session: Session) -> Estimate | None:
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
        evaluation = session.measure(plan.student, rows)
    except BudgetSpent as limit:
        raise ConfigError(
            f"The budget of {limit} was spent before the uncompiled program was measured. Raise compile.budget and run "
            "the same command again to resume."
        ) from None
    if session.budget.cost_limit_unenforceable and plan.teacher is plan.lm:
        raise ConfigError(
            f"compile.budget.cost can't be enforced: no price of {plan.lm.model} is known. Limit lm_calls, tokens or "
            "minutes instead. The answers so far are saved."
        )
    _check_baseline(evaluation)
    return evaluation


def _check_baseline(evaluation: Evaluation) -> None:
    rows = evaluation.rows
    if not rows["error"].notna().all():
        return
    first = rows["error"].iloc[0]
    if not rows["lm_calls"].any():
        raise ProgramError(
            f"The uncompiled program failed on all {len(rows)} questions before it called its LM, first with "
            f"{first}. Fix the program, then compile again."
        )
    outputs = [name for name in rows if name.startswith("pred_") and name not in _RUN_COLUMNS]
    if outputs and rows[outputs].notna().any(axis=1).all():
        raise ProgramError(
            f"The metric failed on all {len(rows)} answers of the uncompiled program, first with {first}. Fix the "
            "metric, then compile again: the recorded answers are replayed."
        )


def _run_with_callbacks(plan: Plan, session: Session, path: Path) -> Compilation:
    """Run the compile and notify its callbacks."""
    if recorded := session.journal.totals.lm_calls:
        _log.warning("Replaying %d recorded LM answers of this compile; fresh=True (--fresh) discards them.", recorded)
    session.notify_past_usage()
    try:
        with raise_outages():
            estimated = _estimate(plan, session)
        session.notify("on_start", plan.agent, plan.recipe, session.journal.id, estimated)
        with raise_outages():
            compilation = _run(plan, session, path, estimated)
    except LMUnreachable as error:
        raise _to_unavailable_error(error) from error.__cause__
    except JournalUnwritable as error:
        raise OneTurnError(str(error)) from error.__cause__
    session.notify("on_end", compilation)
    return compilation


def _run(plan: Plan, session: Session, path: Path, estimated: Estimate | None) -> Compilation:
    before = _baseline(plan, session)
    session.add_candidate(plan.student, before.rows["score"].tolist(), full=True)
    stop_reason = None
    try:
        with session.optimizing(plan.teacher) as teacher:
            program = _run_recipe(plan, teacher)
        after = session.measure(program)
        session.add_candidate(program, after.rows["score"].tolist(), full=True)
        selected = session.candidates[-1]
    except BudgetSpent as limit:
        stop_reason = str(limit)
        selected = session.best
        program = selected.program
        session.budget.close(f"the budget of {stop_reason} is spent")
        after = session.measure(program)
    manifest = _manifest(plan, session, program, before, after, estimated, stop_reason)
    save_compiled(program, manifest, path)
    return Compilation(
        program, manifest, before, after, path, tuple(session.candidates), selected.number, stop_reason, session.trace
    )


def _run_recipe(plan: Plan, teacher: dspy.LM) -> dspy.Module:
    try:
        return plan.run(teacher)
    except DSPyError as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise OneTurnError(
            f"The recipe {plan.recipe!r} failed on a reply of {teacher.model} ({reason}). "
            "Use a stronger compile.teacher, another compile.seed or another recipe."
        ) from error


def _manifest(
    plan: Plan,
    session: Session,
    program: dspy.Module,
    before: Evaluation,
    after: Evaluation,
    estimated: Estimate | None,
    stop_reason: str | None,
) -> Manifest:
    spent = {name: float(value) for name, value in session.journal.totals.to_dict().items() if value is not None}
    thoughts = thoughts_of(program)
    return Manifest(
        recipe=plan.recipe,
        lm=plan.lm.model,
        seed=plan.agent.config.compile.seed,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        versions={package: version(package) for package in ("oneturn", "dspy", "mlflow")},
        dataset={"train": dataset_hash(plan.rows(plan.trainset)), "dev": dataset_hash(plan.rows(plan.devset))},
        scores={"before": _reviewed_scores(before), "after": _reviewed_scores(after)},
        spend={**spent, "seconds": round(session.journal.seconds, 1)},
        estimate=estimated.to_dict() if estimated is not None else None,
        stopped=stop_reason,
        tool_calling=plan.student.tool_calling_with(plan.lm) if isinstance(plan.student, ReAct) else None,
        finish_order=finish_order_of(plan.student) or None,
        thoughts=thoughts or None,
        interface=compiled_interface(plan.student, thoughts),
    )


def _reviewed_scores(evaluation: Evaluation) -> dict[str, float]:
    """The figures for review: the score with its interval, and the usage per row."""
    summary = evaluation.summary()
    names = [
        "score",
        "score_low",
        "score_high",
        "rows",
        "errors",
        *(name for name in summary if name.endswith("_per_row")),
    ]
    return {name: summary[name] for name in names if name != "tries_per_row"}
