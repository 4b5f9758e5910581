"""Compile an agent: measure the program, run a recipe, measure the result and save it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import reduce
from importlib.metadata import version
from pathlib import Path

import dspy
from dspy.utils.exceptions import DSPyError

from oneturn.agent import Agent
from oneturn.compilation.budget import BudgetSpent
from oneturn.compilation.callbacks import CompileCallback
from oneturn.compilation.candidate import Candidate
from oneturn.compilation.front import Front, Preference
from oneturn.compilation.journal import JournalUnwritable
from oneturn.compilation.plan import Plan
from oneturn.compilation.recipes.work import Estimate, estimate, work_of
from oneturn.compilation.result import Compilation
from oneturn.compilation.session import LMUnreachable, Session, raise_outages
from oneturn.config import BudgetConfig
from oneturn.datasets.overlap import refuse_repeated_rows, repeated_rows
from oneturn.datasets.rows import dataset_hash
from oneturn.errors import ConfigError, LMUnavailableError, OneTurnError, ProgramError
from oneturn.evaluation.approval import ApprovalPolicy
from oneturn.evaluation.result import Evaluation
from oneturn.programs.react import ReAct
from oneturn.programs.state import Manifest, compiled_interface, finish_order_of, save_compiled, thoughts_of

_log = logging.getLogger(__name__)
_OVERLAP_HINT = 'To save it anyway: --allow-overlap "the reason" (allow_overlap=…); the answers so far are replayed.'
_TRAJECTORY = "pred_trajectory"
"""The ``pred_…`` columns that a run without an answer has, too."""
PROBE = 5
"""Number of development examples that an estimate is based on."""


@dataclass(frozen=True)
class Choice:
    """Which candidate to save.

    Attributes:
        prefer: the preference or the number of a candidate; ``None`` for the configured preference.
        allow_overlap: the reason to save a program that repeats rows of dev or test; ``None`` to refuse it.
    """

    prefer: Preference | int | None
    allow_overlap: str | None


def compile(
    agent: Agent,
    *,
    recipe: str | None = None,
    save_to: Path | None = None,
    budget: BudgetConfig | None = None,
    fresh: bool = False,
    callbacks: Sequence[CompileCallback] = (),
    approve: ApprovalPolicy | None = None,
    prefer: Preference | int | None = None,
    allow_overlap: str | None = None,
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
        prefer: which candidate becomes the compiled program, see :meth:`Front.choose`; ``None`` for the configured
            preference. A compile that is started again with another preference replays its answers and asks no LM.
        allow_overlap: the reason to save a program whose prompts repeat rows of dev or test; it is recorded in the
            manifest with these rows.

    Returns:
        The compiled program with its manifest, its evaluations and the front of its candidates.

    Raises:
        ConfigError: no recipe has that name, or its parameters or return value are wrong; no measured candidate has
            the preferred number; or the budget ran out before the uncompiled program was measured, or limits the cost
            of an LM without a known price.
        DataError: the journal of an earlier run can't be read.
        LMUnavailableError: the LM is unavailable. Only its answers so far are saved.
        ProgramError: the uncompiled program fails on every question before it calls its LM, or the metric fails on
            every answer; or the prompts of the chosen program repeat rows of dev or test, which the message names.
        OneTurnError: the recipe failed on a reply of the LM; another process is running the same compile; or the
            journal or the program can't be written.
    """
    plan = Plan.of(agent, recipe)
    path = save_to or agent.compiled_path
    session = _open_session(plan, budget, fresh, callbacks, approve)
    try:
        compilation = _run_with_callbacks(plan, session, path, Choice(prefer, allow_overlap))
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
    if warning := plan.reflector_warning():
        _log.warning("%s", warning)
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
    return Session(plan.folder, plan.devset, plan.agent.metric, limits, settings.threads, callbacks, fresh, approve)


def _estimate(plan: Plan, session: Session) -> Estimate | None:
    work = work_of(plan.optimize, len(plan.trainset), len(plan.devset))
    if work is None:
        return None
    threads = plan.agent.config.compile.threads
    estimates = []
    for lm in plan.lms.values():
        probe = _baseline(plan, session, lm, rows=PROBE)
        estimates.append(estimate(work, len(plan.devset), probe, _price(probe), threads))
    return reduce(Estimate.plus, estimates)


def _price(probe: Evaluation) -> float | None:
    """US dollars per token; ``None`` if no price is known."""
    spent = probe.spent()
    tokens = spent.get("prompt_tokens", 0.0) + spent.get("completion_tokens", 0.0)
    return spent["cost"] / tokens if "cost" in spent and tokens else None


def _baseline(plan: Plan, session: Session, lm: dspy.BaseLM, rows: int | None = None) -> Evaluation:
    try:
        evaluation = session.measure(plan.student, lm, rows)
    except BudgetSpent as limit:
        if any(candidate.full for candidate in session.candidates):  # of another LM: the best of them is kept
            raise
        raise ConfigError(
            f"The budget of {limit} was spent before the uncompiled program was measured. Raise compile.budget and run "
            "the same command again to resume."
        ) from None
    if session.budget.cost_limit_unenforceable and plan.teacher is None:
        raise ConfigError(
            f"compile.budget.cost can't be enforced: no price of {lm.model} is known. Limit lm_calls, tokens or "
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
    outputs = [name for name in rows if name.startswith("pred_") and name != _TRAJECTORY]
    if outputs and rows[outputs].notna().any(axis=1).all():
        raise ProgramError(
            f"The metric failed on all {len(rows)} answers of the uncompiled program, first with {first}. Fix the "
            "metric, then compile again: the recorded answers are replayed."
        )


def _run_with_callbacks(plan: Plan, session: Session, path: Path, choice: Choice) -> Compilation:
    """Run the compile and notify its callbacks."""
    if recorded := session.journal.totals.lm_calls:
        source = "this compile (an earlier run, or its estimate)"
        _log.warning("Replaying %d recorded LM answers of %s; --fresh (fresh=True) discards them.", recorded, source)
    session.notify_past_usage()
    if warning := plan.reflector_warning():
        _log.warning("%s", warning)
    try:
        with raise_outages():
            estimated = _estimate(plan, session)
        session.notify("on_start", plan.agent, plan.recipe, session.journal.id, estimated)
        with raise_outages():
            compilation = _run(plan, session, path, estimated, choice)
    except LMUnreachable as error:
        raise _to_unavailable_error(error) from error.__cause__
    except JournalUnwritable as error:
        raise OneTurnError(str(error)) from error.__cause__
    session.notify("on_end", compilation)
    return compilation


def _run(plan: Plan, session: Session, path: Path, estimated: Estimate | None, choice: Choice) -> Compilation:
    _add_baseline(plan, session, plan.lm)
    result, stop_reason = None, None
    try:
        result = _run_recipe(plan, session, plan.lm)
        for lm in plan.further_lms:
            _add_baseline(plan, session, lm)
            _run_recipe(plan, session, lm)
        session.measure_candidates(plan.lms)
    except BudgetSpent as limit:
        stop_reason = str(limit)
        session.budget.close(f"the budget of {stop_reason} is spent")
        session.measure_candidates(plan.lms)
    front = Front.of(session.candidates)
    result = None if result is None else session.first_like(result)
    prefer = plan.agent.config.compile.prefer if choice.prefer is None else choice.prefer
    selected = front.choose(prefer, result)
    repeated = repeated_rows(plan.agent, selected.program.dump_state())
    if not choice.allow_overlap:
        refuse_repeated_rows(repeated, "The compiled program isn't saved", _OVERLAP_HINT)
    lm = plan.lms[selected.lm]
    before = next(each for each in front.measured if each.uncompiled and each.lm == selected.lm)
    manifest = _manifest(plan, session, before, selected, front, estimated, stop_reason)
    if repeated:
        manifest.overlap = {"reason": choice.allow_overlap, "rows": [str(row) for row in repeated]}
    save_compiled(selected.program, manifest, path)
    return Compilation(
        selected.program,
        manifest,
        _evaluation_of(before),
        _evaluation_of(selected),
        path,
        tuple(session.candidates),
        selected.number,
        stop_reason,
        lambda program, index: session.trace(program, lm, index),
    )


def _evaluation_of(candidate: Candidate) -> Evaluation:
    assert candidate.evaluation is not None, "a point of the front has an evaluation"  # noqa: S101
    return candidate.evaluation


def _add_baseline(plan: Plan, session: Session, lm: dspy.BaseLM) -> None:
    session.add_evaluated(plan.student, lm, _baseline(plan, session, lm), uncompiled=True)


def _run_recipe(plan: Plan, session: Session, lm: dspy.BaseLM) -> int:
    """Run the recipe for an LM, measure its program, and return the number of that candidate."""
    teacher = plan.teacher or lm
    with session.optimizing(lm, teacher) as journaled:
        try:
            program = plan.run(journaled)
        except DSPyError as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise OneTurnError(
                f"The recipe {plan.recipe!r} failed on a reply of {teacher.model} ({reason}). "
                "Use a stronger compile.teacher, another compile.seed or another recipe."
            ) from error
    return session.add_evaluated(program, lm, session.measure(program, lm), uncompiled=False)


def _manifest(
    plan: Plan,
    session: Session,
    before: Candidate,
    selected: Candidate,
    front: Front,
    estimated: Estimate | None,
    stop_reason: str | None,
) -> Manifest:
    spent = {name: float(value) for name, value in session.journal.totals.to_dict().items() if value is not None}
    thoughts = thoughts_of(selected.program)
    return Manifest(
        recipe=plan.recipe,
        lm=selected.lm,
        seed=plan.agent.config.compile.seed,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        versions={package: version(package) for package in ("oneturn", "dspy", "mlflow")},
        dataset={"train": dataset_hash(plan.rows(plan.trainset)), "dev": dataset_hash(plan.rows(plan.devset))},
        scores={
            name: _reviewed_scores(_evaluation_of(each)) for name, each in (("before", before), ("after", selected))
        },
        spend={**spent, "seconds": round(session.journal.seconds, 1)},
        estimate=estimated.to_dict() if estimated is not None else None,
        stopped=stop_reason,
        tool_calling=_tool_calling(plan, plan.lms[selected.lm]),
        finish_order=finish_order_of(plan.student) or None,
        thoughts=thoughts or None,
        interface=compiled_interface(plan.student, thoughts),
        front=front.to_dicts(),
    )


def _tool_calling(plan: Plan, lm: dspy.BaseLM) -> str | None:
    return plan.student.tool_calling_with(lm) if isinstance(plan.student, ReAct) else None


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
