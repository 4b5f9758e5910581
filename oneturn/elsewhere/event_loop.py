"""One event loop in a thread of its own, for clients that are asynchronous: the agent stays synchronous."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, TypeVar

from oneturn.control import current

T = TypeVar("T")
_TICK = 1.0  # seconds between two looks at the run's deadline


class BackgroundLoop:
    """An event loop in a daemon thread, started when it is first needed, ended with the process."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.loop = asyncio.new_event_loop()
        self._closers: list[Callable[[], Coroutine[Any, Any, None]]] = []
        threading.Thread(target=self.loop.run_forever, name="oneturn-event-loop", daemon=True).start()
        atexit.register(self.close)

    def closing(self, close: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run ``close`` in the loop when the process ends."""
        self._closers.append(close)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What ``work`` gives, run in the loop while this thread waits; cancelled there when the run has to stop.

        Raises:
            RunCancelled: the run has to stop.
        """
        control = current()
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            with control.waking(future.cancel):
                while True:
                    control.check()
                    left = control.remaining()
                    try:
                        return _waited(future, _TICK if left is None else min(left, _TICK))
                    except FutureTimeout:
                        if future.done():
                            return future.result()
                    except BaseException:
                        control.check()
                        raise
        finally:
            future.cancel()

    def close(self) -> None:
        """End what is open; waits a few seconds at most."""
        if self.pid != os.getpid():  # a fork: the thread, and what it held, are the parent's
            return
        for close in self._closers:
            _ended(asyncio.run_coroutine_threadsafe(close(), self.loop))
        self.loop.call_soon_threadsafe(self.loop.stop)


def background_loop() -> BackgroundLoop:
    """This process's loop."""
    global _loop
    with _lock:
        if _loop is None or _loop.pid != os.getpid():
            _loop = BackgroundLoop()
        return _loop


def _waited(future: Future[T], seconds: float) -> T:
    return future.result(timeout=seconds)


def _ended(future: Future[None]) -> None:
    try:
        future.result(timeout=3)
    except Exception:  # the process ends whatever a server does
        future.cancel()


_loop: BackgroundLoop | None = None
_lock = threading.Lock()


def _renew() -> None:
    global _lock, _loop
    _lock, _loop = threading.Lock(), None


os.register_at_fork(after_in_child=_renew)
