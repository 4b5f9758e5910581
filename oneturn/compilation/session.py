"""One compile at work: its journal, its budget, what it has measured, and who is told."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dspy
import mlflow
from dspy.clients.cache import Cache
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

from oneturn.compilation.budget import Budget
from oneturn.compilation.callbacks import CompileCallback, EvaluationWatcher
from oneturn.compilation.journal import Cursor, Journal
from oneturn.compilation.replay_lm import UncountedLMs, journaled
from oneturn.compilation.result import Candidate
from oneturn.config import BudgetConfig
from oneturn.core.usage import Totals
from oneturn.evaluation import evaluate
from oneturn.evaluation.result import Evaluation, Metric

_ERRORS = 1_000_000
"""Runs that may fail: one costs its example the score, not the compile its life."""

_log = logging.getLogger(__name__)


class Session:
    """What a compile keeps while it runs.

    Args:
        folder: where its journal stands.
        lm: the LM that is compiled for.
        devset: the examples that programs are measured on.
        metric: how an answer is judged.
        limits: what may be spent.
        threads: examples at the same time.
        listeners: who is told.
        fresh: forget what earlier starts were answered.
    """

    def __init__(
        self,
        folder: Path,
        lm: dspy.BaseLM,
        devset: Sequence[dspy.Example],
        metric: Metric,
        limits: BudgetConfig,
        threads: int,
        listeners: Sequence[CompileCallback],
        fresh: bool = False,
    ):
        self._lm = lm
        self._devset = devset
        self._metric = metric
        self._threads = threads
        self._listeners = listeners
        self.journal = Journal(folder / "journal.jsonl", fresh)
        self.budget = Budget(limits, self.journal, self._tell_spent)
        self.candidates: list[Candidate] = []
        self._uncounted = UncountedLMs()

    def close(self) -> None:
        """Let no thread that an optimizer has left behind ask the LM any more, and keep what is being answered."""
        try:
            self.budget.close("the compile is over")
        finally:  # whoever interrupts once more doesn't want to wait
            self.journal.close()

    def tell(self, happening: str, *args: Any) -> None:
        """Call this method of every listener."""
        for listener in self._listeners:
            try:
                getattr(listener, happening)(*args)
            except Exception:  # a listener's failure must not cost what the compile has spent
                _log.exception("%s.%s failed; the compile goes on.", type(listener).__name__, happening)

    def tell_spent_before(self) -> None:
        """Tell what earlier starts have spent, if there were any."""
        if self.journal.totals.lm_calls:
            self._tell_spent(self.journal.totals)

    def measure(self, program: dspy.Module, rows: int | None = None) -> Evaluation:
        """Evaluate a program on the development examples, or the first so many; what is known isn't asked again.

        Raises:
            BudgetSpent: the budget didn't last.
        """
        lm = journaled(self._lm, self.journal, Cursor(), self.budget, cache=False)
        with dspy.context(callbacks=[*dspy.settings.callbacks, self._uncounted]):
            return evaluate(program, self._devset[:rows], self._metric, lm=lm, threads=self._threads)

    def trace(self, program: dspy.Module, place: int) -> str | None:
        """Run a program on an example that it was measured on, with what it was answered then; give the trace's id."""
        self.budget.close("the compile is over")
        lm = journaled(self._lm, self.journal, Cursor(), self.budget, cache=False)
        example = self._devset[place]
        with mlflow.start_span("run", SpanType.AGENT) as span, dspy.context(lm=lm):
            span.set_inputs(example.inputs().toDict())
            try:
                span.set_outputs(dict(program(**example.inputs())))
            except Exception as error:  # a row that failed is what the trace is for
                span.record_exception(error)
                span.set_status("ERROR")
        return span.trace_id if isinstance(span, LiveSpan) else None

    def measured(self, program: dspy.Module, scores: Sequence[float], full: bool) -> None:
        """A program was measured: it is the next candidate."""
        candidate = Candidate(
            number=len(self.candidates),
            program=program,
            scores=tuple(scores),
            full=full,
            spent=self.journal.reached.totals,
            seconds=self.journal.reached.seconds,
        )
        self.candidates.append(candidate)
        self.tell("on_candidate", candidate)

    @property
    def best(self) -> Candidate:
        """The best of the candidates that were measured on all examples; of equals, the first."""
        return max((candidate for candidate in self.candidates if candidate.full), key=lambda found: found.score)

    @contextmanager
    def optimizing(self, teacher: dspy.BaseLM) -> Iterator[dspy.LM]:
        """In the block, DSPy's optimizers ask the journaled LM, and what they measure is seen; yields the teacher.

        A request that is repeated in the block gets its first answer again, as DSPy's own cache would give it.
        """
        cursor = Cursor()
        lm = journaled(self._lm, self.journal, cursor, self.budget, cache=True)
        teaching = lm if teacher is self._lm else journaled(teacher, self.journal, cursor, self.budget, cache=True)
        watchers = [EvaluationWatcher(self._devset, self.measured), self._uncounted]
        with _own_cache(), dspy.context(lm=lm, callbacks=[*dspy.settings.callbacks, *watchers], max_errors=_ERRORS):
            yield teaching

    def _tell_spent(self, totals: Totals) -> None:
        self.tell("on_usage", totals, self.journal.seconds)


@contextmanager
def _own_cache() -> Iterator[None]:
    """DSPy with an empty cache in memory: an answer of another time would be one that nobody has counted."""
    before = dspy.cache
    dspy.cache = Cache(enable_disk_cache=False, enable_memory_cache=True, disk_cache_dir=None)
    try:
        yield
    finally:
        dspy.cache = before


_OUTAGES = (
    LMAuthError,
    LMBillingError,
    LMConfigurationError,
    LMRateLimitError,
    LMTransportError,
    LMUnsupportedModelError,
)


class LMUnreachable(BaseException):
    """The LM can't be asked any more, whatever the request.

    Not an ``Exception``: an optimizer must not take it for an example that failed.
    """


class _Watcher(BaseCallback):
    """Sees each LM call that failed for good, after DSPy's own retries."""

    def on_lm_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        if isinstance(exception, _OUTAGES):
            raise LMUnreachable(str(exception).partition("\n")[0]) from exception


@contextmanager
def outages_raised() -> Iterator[None]:
    """In the block, an LM that can't be asked any more raises :class:`LMUnreachable`."""
    with dspy.context(callbacks=[*dspy.settings.callbacks, _Watcher()]):
        yield
