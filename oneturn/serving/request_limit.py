"""How many requests a server answers at a time: the others wait in a bounded queue, or get status 503."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from oneturn.core.background import KEEP_ALIVE, check_abandoned
from oneturn.core.run_context import current_run
from oneturn.errors import AgentError

_RETRY_SECONDS = 5.0


class RequestLimit:
    """Limits the requests of one server process. Runs start in the order of their requests.

    A request is checked before it waits, so an invalid one is refused at once.

    Args:
        running: how many requests run at a time.
        waiting: how many more wait for one of them to end.
    """

    def __init__(self, running: int, waiting: int):
        self.capacity = running + waiting
        self._free = running
        self._open = 0
        self._queue: deque[_Place] = deque()
        self._lock = threading.Lock()

    def admit(self) -> None:
        """Count a request as open until ``leave`` is called.

        Raises:
            AgentError: with status 503: all places are taken, in the queue as well; or too many calls of ended requests
                are still running because nothing interrupts them.
        """
        check_abandoned()
        with self._lock:
            if self._open >= self.capacity:
                message = f"The server is busy with {self._open} requests; retry later."
                raise AgentError(message, "overloaded", 503, retry_after=_RETRY_SECONDS, retryable=True)
            self._open += 1

    def leave(self) -> None:
        """Count a request as ended."""
        with self._lock:
            self._open -= 1

    @contextmanager
    def place(self, on_wait: Callable[[], object]) -> Iterator[None]:
        """Wait until the current run may start, and hold its place inside the block; called in the run's thread.

        A run that is cancelled while it waits gets no place and doesn't wait any longer, so that it can end.

        Args:
            on_wait: called when the wait begins, and every ``KEEP_ALIVE`` seconds of it.
        """
        place = _Place()
        with self._lock:
            if self._free:
                self._free -= 1
                place.taken = True
            else:
                self._queue.append(place)
        try:
            place.wait(on_wait)
            yield
        finally:
            self._free_place(place)

    def _free_place(self, place: _Place) -> None:
        with self._lock:
            if not place.taken:
                self._queue.remove(place)
            elif self._queue:
                self._queue.popleft().take()
            else:
                self._free += 1


class _Place:
    """A place of one run: taken, or waited for."""

    def __init__(self) -> None:
        self.taken = False
        self._changed = threading.Event()

    def take(self) -> None:
        self.taken = True
        self._changed.set()

    def wait(self, on_wait: Callable[[], object]) -> None:
        run = current_run()
        with run.waking(self._changed.set):
            while not self.taken and run.reason is None:
                on_wait()
                self._changed.wait(KEEP_ALIVE)
