"""The state of a running compile: journal, budget, candidates and callbacks."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import dspy
import mlflow
from dspy.utils.callback import BaseCallback
from dspy.utils.exceptions import (
    LMAuthError,
    LMBillingError,
    LMConfigurationError,
    LMRateLimitError,
    LMTransportError,
    LMUnsupportedModelError,
)
from mlflow.entities import LiveSpan, SpanType
from mlflow.exceptions import MlflowException

from oneturn.compilation.budget import Budget
from oneturn.compilation.callbacks import CompileCallback, EvaluationObserver
from oneturn.compilation.candidate import Candidate
from oneturn.compilation.journal import Cursor, Journal
from oneturn.compilation.replay_lm import UncountedLMs, journaled_lm
from oneturn.config import BudgetConfig
from oneturn.core._dspy import replaced_cache, without_bars
from oneturn.core.findings import failure_line
from oneturn.core.terminal import can_redraw
from oneturn.core.usage import Usage
from oneturn.errors import OneTurnError
from oneturn.evaluation import evaluate
from oneturn.evaluation.approval import ApprovalPolicy, use_approval_policy
from oneturn.evaluation.result import Evaluation, Metric
from oneturn.programs.state import finish_order_of, thoughts_of

_ERRORS = 1_000_000
"""Number of failed runs that DSPy accepts. A failed run scores 0 and must not end the compile."""

_log = logging.getLogger(__name__)


class Session:
    """The state of a compile while it runs.

    Args:
        folder: directory of the journal.
        devset: the examples that programs are measured on.
        metric: scores an answer.
        limits: the budget.
        threads: number of examples to run in parallel.
        callbacks: notified of the start, each candidate, the usage and the end.
        fresh: discard the answers recorded by earlier runs.
        approve: decides on tool calls that need a person's approval; without it they are never run.
    """

    def __init__(
        self,
        folder: Path,
        devset: Sequence[dspy.Example],
        metric: Metric,
        limits: BudgetConfig,
        threads: int,
        callbacks: Sequence[CompileCallback],
        fresh: bool = False,
        approve: ApprovalPolicy | None = None,
    ):
        self._devset = devset
        self._metric = metric
        self._threads = threads
        self._callbacks = callbacks
        self._approve = approve
        self.journal = Journal(folder / "journal.jsonl", fresh)
        self.budget = Budget(limits, self.journal, self._notify_usage)
        self.candidates: list[Candidate] = []
        self._uncounted = UncountedLMs()

    def close(self) -> None:
        """Refuse further LM calls from threads that an optimizer left running, and record the calls in progress."""
        try:
            self.budget.close("the compile is over")
        finally:  # a second interrupt must not wait for them
            self.journal.close()

    def notify(self, event: str, *args: Any) -> None:
        """Call the method ``event`` of every callback."""
        for callback in self._callbacks:
            try:
                getattr(callback, event)(*args)
            except Exception as error:  # a failing callback must not discard what the compile has paid for
                failed = f"{type(callback).__name__}.{event} failed; the compile continues"
                if isinstance(error, OneTurnError | MlflowException | OSError):  # of the tracking store, no defect
                    _log.warning("%s. %s", failed, failure_line(error))
                else:
                    _log.exception("%s.", failed)

    def notify_past_usage(self) -> None:
        """Report the usage of earlier runs of this compile, if there were any."""
        if self.journal.totals.lm_calls:
            self._notify_usage(self.journal.totals)

    def measure(self, program: dspy.Module, lm: dspy.BaseLM, rows: int | None = None) -> Evaluation:
        """Evaluate a program on the development examples, reusing recorded answers.

        Args:
            program: the program to evaluate.
            lm: the LM that answers.
            rows: number of examples to use, from the first; ``None`` for all.

        Raises:
            BudgetSpent: the budget ran out.
        """
        with dspy.context(callbacks=[*dspy.settings.callbacks, self._uncounted]):
            return evaluate(
                program,
                self._devset[:rows],
                self._metric,
                lm=journaled_lm(lm, self.journal, Cursor(), self.budget, cache=False),
                threads=self._threads,
                approve=self._approve,
                max_same_errors=None,  # a candidate whose prompt fails on every row scores 0
            )

    def measure_candidates(self, lms: Mapping[str, dspy.BaseLM]) -> None:
        """Evaluate the candidates that only an optimizer has measured, with its recorded answers, for their usage.

        Args:
            lms: the LMs by model string.

        Raises:
            BudgetSpent: an answer isn't recorded, such as after a tool that returned something else, and the budget is
                spent.
        """
        by_program = {self._identity(each): each.evaluation for each in self.candidates if each.evaluation is not None}
        for index, candidate in enumerate(self.candidates):
            if candidate.full and candidate.evaluation is None:
                identity = self._identity(candidate)
                if identity not in by_program:
                    by_program[identity] = self.measure(candidate.program, lms[candidate.lm])
                self.candidates[index] = replace(candidate, evaluation=by_program[identity])

    def first_like(self, number: int) -> int:
        """Return the number of the first candidate with the same program and LM."""
        identity = self._identity(self.candidates[number])
        return next(each.number for each in self.candidates if self._identity(each) == identity)

    @staticmethod
    def _identity(candidate: Candidate) -> tuple[str, str]:
        """What decides a candidate's answers: its LM, its prompts, and the form of its steps."""
        program = candidate.program
        decisive = [program.dump_state(), thoughts_of(program), finish_order_of(program)]
        return candidate.lm, json.dumps(decisive, sort_keys=True, default=str)

    def trace(self, program: dspy.Module, lm: dspy.BaseLM, index: int) -> str | None:
        """Run a program again on an example that it was measured on, with the recorded answers.

        Returns:
            The id of the trace; ``None`` if tracing is off.
        """
        self.budget.close("the compile is over")
        replayed = journaled_lm(lm, self.journal, Cursor(), self.budget, cache=False)
        example = self._devset[index]
        with mlflow.start_span("run", SpanType.AGENT) as span, dspy.context(lm=replayed):
            span.set_inputs(example.inputs().toDict())
            try:
                span.set_outputs(dict(program(**example.inputs())))
            except Exception as error:  # the trace is meant to show failed rows
                span.record_exception(error)
                span.set_status("ERROR")
        return span.trace_id if isinstance(span, LiveSpan) else None

    def add_evaluated(self, program: dspy.Module, lm: dspy.BaseLM, evaluation: Evaluation, uncompiled: bool) -> int:
        """Record an evaluated program as the next candidate, and return its number."""
        scores = evaluation.rows["score"].tolist()
        self._add(program, scores, lm.model, full=True, uncompiled=uncompiled, evaluation=evaluation)
        return self.candidates[-1].number

    def _add(
        self,
        program: dspy.Module,
        scores: Sequence[float],
        lm: str,
        *,
        full: bool,
        uncompiled: bool = False,
        evaluation: Evaluation | None = None,
    ) -> None:
        candidate = Candidate(
            number=len(self.candidates),
            program=program,
            scores=tuple(scores),
            full=full,
            spent=self.journal.progress.totals,
            seconds=self.journal.progress.seconds,
            lm=lm,
            uncompiled=uncompiled,
            evaluation=evaluation,
        )
        self.candidates.append(candidate)
        self.notify("on_candidate", candidate)

    @contextmanager
    def optimizing(self, lm: dspy.BaseLM, teacher: dspy.BaseLM) -> Iterator[dspy.LM]:
        """Use the journaled LM for DSPy's optimizers and record the programs they measure; yield the journaled teacher.

        A request that is repeated in the block returns its first answer, as DSPy's own cache does.
        """
        cursor = Cursor()
        journaled = journaled_lm(lm, self.journal, cursor, self.budget, cache=True)
        journaled_teacher = (
            journaled if teacher is lm else journaled_lm(teacher, self.journal, cursor, self.budget, cache=True)
        )

        def add(program: dspy.Module, scores: Sequence[float], full: bool) -> None:
            self._add(program, scores, lm.model, full=full)

        callbacks = [EvaluationObserver(self._devset, add), self._uncounted]
        with (
            contextlib.nullcontext() if can_redraw() else without_bars(),
            replaced_cache(memory=True),  # an answer from an earlier cache would not be counted
            dspy.context(lm=journaled, callbacks=[*dspy.settings.callbacks, *callbacks], max_errors=_ERRORS),
            use_approval_policy(self._approve),
        ):
            yield journaled_teacher

    def _notify_usage(self, totals: Usage) -> None:
        self.notify("on_usage", totals, self.journal.seconds)


_OUTAGES = (
    LMAuthError,
    LMBillingError,
    LMConfigurationError,
    LMRateLimitError,
    LMTransportError,
    LMUnsupportedModelError,
)


class LMUnreachable(BaseException):
    """The LM can't answer any request.

    Not an ``Exception``: an optimizer must not treat it as a failed example.
    """


class _OutageCallback(BaseCallback):
    """Raises :class:`LMUnreachable` when an LM call still fails after DSPy's own retries."""

    def on_lm_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        if isinstance(exception, _OUTAGES):
            raise LMUnreachable(str(exception).partition("\n")[0]) from exception


@contextmanager
def raise_outages() -> Iterator[None]:
    """In the block, an unavailable LM raises :class:`LMUnreachable`."""
    with dspy.context(callbacks=[*dspy.settings.callbacks, _OutageCallback()]):
        yield
