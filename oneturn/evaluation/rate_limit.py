"""How many rows are at work at the same time: as many as allowed, fewer while the LM or the endpoint is busy."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LEAST_WAIT = 1.0
_MOST_WAIT = 60.0


class Limiter:
    """Additive increase, multiplicative decrease (as TCP's congestion control, Chiu and Jain 1989).

    Whoever is told to slow down halves the number; each row that was answered since raises it a little.

    Args:
        most: rows at the same time.
        clock: seconds.
        sleep: waits so many of them.
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
        self._at_work = 0
        self._not_before = 0.0
        self._slowed = -1.0

    @property
    def allowed(self) -> int:
        """How many rows may be at work now."""
        return max(1, int(self._allowed))

    @contextmanager
    def slot(self) -> Iterator[None]:
        """A place at work; waits until there is one, and until a pause that was asked for is over."""
        with self._changed:
            while self._at_work >= self.allowed:
                self._changed.wait()
            self._at_work += 1
        try:
            if (pause := self._not_before - self._clock()) > 0:
                self._sleep(pause)
            yield
        finally:
            with self._changed:
                self._at_work -= 1
                self._changed.notify_all()

    def answered(self) -> None:
        """A row was answered: a little more at a time."""
        with self._changed:
            self._allowed = min(self._most, self._allowed + 1 / max(self._allowed, 1))
            self._changed.notify_all()

    def refused(self, retry_after: float | None, attempt: int) -> None:
        """A row was told to come again later: half as many from now on, and none before that time.

        Rows that were sent together are refused together: that counts once.

        Args:
            retry_after: seconds to wait, where it was said; else longer with each attempt.
            attempt: which try of the row this was, from 0.
        """
        wait = retry_after if retry_after is not None else min(_LEAST_WAIT * 2**attempt, _MOST_WAIT)
        with self._changed:
            now = self._clock()
            if now > self._slowed:
                self._allowed = max(1.0, self._allowed / 2)
                self._slowed = now + wait
            self._not_before = max(self._not_before, now + wait)
