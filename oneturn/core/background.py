"""A call in a thread of its own, whose happenings are read while it runs."""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable, Generator
from typing import Any, TypeVar

from oneturn.core.run_context import RunContext, current_run

KEEP_ALIVE = 10.0
"""Seconds between two signs of life of a run that has nothing to tell: less than proxies wait."""

T = TypeVar("T")
RunEvent = TypeVar("RunEvent")


class ConsumerGone(BaseException):
    """The reader went away: stop the run.

    Not an ``Exception``: neither a program's own ``except Exception`` nor DSPy's may turn it into something else.
    """


def stream_in_thread(
    call: Callable[[Callable[[RunEvent], None]], T], alive: Any = None
) -> Generator[RunEvent, None, T]:
    """Run ``call(tell)`` in a thread; yield what it tells, return what it returns.

    Raises whatever ``call`` raises, and ``RunCancelled`` when the run has to stop. Then, and when the generator is
    closed, the next ``tell`` fails, which ends the call.

    Args:
        call: does the work.
        alive: yielded after each ``KEEP_ALIVE`` seconds in which nothing was told, if given.
    """
    events: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
    abandoned = threading.Event()
    control = current_run()
    control.check()

    def tell(happening: RunEvent) -> None:
        if abandoned.is_set():
            raise ConsumerGone
        events.put(("told", happening))

    def work() -> None:
        try:
            events.put(("value", call(tell)))
        except BaseException as error:  # handed over to the reader's thread, which raises it
            events.put(("error", error))

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(work,), name="oneturn-run", daemon=True).start()
    try:
        with control.waking(lambda: events.put(("stop", None))):
            while True:
                kind, value = _next(events, control, ("told", alive) if alive is not None else ("stop", None))
                if kind == "told":
                    yield value
                elif kind == "error":
                    raise value
                elif kind == "value":
                    result: T = value
                    return result
                control.check()
    finally:
        abandoned.set()


def run_in_thread(call: Callable[[Callable[[RunEvent], None]], T], hear: Callable[[RunEvent], object]) -> T:
    """Run ``call(tell)`` in a thread and ``hear`` in this one what it tells; give what it gives.

    Raises:
        RunCancelled: the run has to stop; this doesn't wait for ``call``.
    """
    watched = stream_in_thread(call)
    try:
        while True:
            hear(next(watched))
    except StopIteration as end:
        value: T = end.value
        return value
    finally:
        watched.close()


def _next(events: queue.SimpleQueue[tuple[str, Any]], control: RunContext, silence: tuple[str, Any]) -> tuple[str, Any]:
    left = control.remaining()
    try:
        return events.get(timeout=KEEP_ALIVE if left is None else min(left, KEEP_ALIVE))
    except queue.Empty:
        return silence if control.reason is None else ("stop", None)
