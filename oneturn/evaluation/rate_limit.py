"""Retry a row whose LM or endpoint is rate-limited (429, 503), and reduce the number of rows in progress meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dspy
from dspy.utils.exceptions import is_retryable_lm_error

from oneturn.errors import AgentError, EndpointError
from oneturn.evaluation.targets import Target, TargetResult

_MIN_WAIT = 1.0
_MAX_WAIT = 60.0
_RETRIED = (429, 503)


class ConcurrencyLimiter:
    """Adaptive concurrency: additive increase, multiplicative decrease (Chiu and Jain 1989, as in TCP).

    A refused row halves the limit; each answered row raises it slightly.

    Args:
        most: the maximum number of rows in progress.
        clock: returns the current time in seconds.
        sleep: waits for a number of seconds.
    """

    def __init__(
        self,
        most: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ):
        self._most = most
        self._clock = clock
        self._sleep = sleep
        self._changed = threading.Condition()
        self._allowed = float(most)
        self._in_progress = 0
        self._not_before = 0.0
        self._reduced_until = -1.0

    @property
    def allowed(self) -> int:
        """The current limit."""
        return max(1, int(self._allowed))

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Hold a slot for one row; waits for a free slot and for the end of a requested pause."""
        with self._changed:
            while self._in_progress >= self.allowed:
                self._changed.wait()
            self._in_progress += 1
        try:
            if (pause := self._not_before - self._clock()) > 0:
                self._sleep(pause)
            yield
        finally:
            with self._changed:
                self._in_progress -= 1
                self._changed.notify_all()

    def answered(self) -> None:
        """Record an answered row, which raises the limit slightly."""
        with self._changed:
            self._allowed = min(self._most, self._allowed + 1 / max(self._allowed, 1))
            self._changed.notify_all()

    def refused(self, retry_after: float | None, attempt: int) -> None:
        """Record a rate-limited row, which halves the limit and pauses all rows.

        Refusals during the pause count once, because rows in progress are usually refused together.

        Args:
            retry_after: seconds to wait, if the server sent them; ``None`` for exponential backoff.
            attempt: number of the row's attempt, from 0.
        """
        wait = retry_after if retry_after is not None else min(_MIN_WAIT * 2**attempt, _MAX_WAIT)
        with self._changed:
            now = self._clock()
            if now > self._reduced_until:
                self._allowed = max(1.0, self._allowed / 2)
                self._reduced_until = now + wait
            self._not_before = max(self._not_before, now + wait)


def answer_with_retries(
    target: Target, example: dspy.Example, limiter: ConcurrencyLimiter, tries: int
) -> tuple[TargetResult, int, Exception | None]:
    """Run a target on an example until it answers, fails for good, or has been tried ``tries`` times.

    A run in which a call was approved isn't repeated.

    Returns:
        what the last attempt gave, the number of attempts, and the error of the last one.
    """
    for attempt in range(tries):
        answered = TargetResult()
        with limiter.slot():
            try:
                target.answer(example, answered)
            except Exception as error:  # the error of a program belongs to its row
                failure = error
            else:
                limiter.answered()
                return answered, attempt + 1, None
        if not _is_temporary(failure) or answered.approved or attempt + 1 == tries:  # no approved call is run twice
            return answered, attempt + 1, failure
        limiter.refused(getattr(failure, "retry_after", None), attempt)
    raise ValueError(f"tries is {tries}; it must be at least 1.")


def _is_temporary(error: Exception) -> bool:
    """Whether it is the status of a busy server, or what DSPy repeats an LM call for: a timeout, a lost connection."""
    if isinstance(error, AgentError | EndpointError):
        return error.status in _RETRIED
    return bool(is_retryable_lm_error(error))
