"""Run a function in a background thread and stream its events."""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable, Generator
from typing import Any, TypeVar

from oneturn.core.run_context import RunContext, current_run

KEEP_ALIVE = 10.0
"""Seconds without an event after which a keep-alive is sent; below the idle timeout of common proxies."""

T = TypeVar("T")
RunEvent = TypeVar("RunEvent")


class ConsumerGone(BaseException):
    """The event stream was closed: stop the run.

    A ``BaseException``, so that ``except Exception`` in a program or in DSPy doesn't catch it.
    """


def stream_in_thread(
    call: Callable[[Callable[[RunEvent], None]], T], alive: Any = None
) -> Generator[RunEvent, None, T]:
    """Run ``call(emit)`` in a thread; yield the events it emits.

    After a cancellation, or once the generator is closed, the next ``emit`` raises ``ConsumerGone``, which ends the
    call.

    Args:
        call: the function to run; it calls ``emit`` with each event.
        alive: the event to yield after each ``KEEP_ALIVE`` seconds without one, if given.

    Returns:
        The return value of ``call``.

    Raises:
        RunCancelled: the run was cancelled, or its deadline passed. Exceptions of ``call`` propagate.
    """
    events: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
    abandoned = threading.Event()
    control = current_run()
    control.check()

    def emit(event: RunEvent) -> None:
        if abandoned.is_set():
            raise ConsumerGone
        events.put(("event", event))

    def work() -> None:
        try:
            events.put(("value", call(emit)))
        except BaseException as error:  # raised in the consumer's thread
            events.put(("error", error))

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(work,), name="oneturn-run", daemon=True).start()
    try:
        with control.waking(lambda: events.put(("stop", None))):
            while True:
                kind, value = _next(events, control, ("event", alive) if alive is not None else ("stop", None))
                if kind == "event":
                    yield value
                elif kind == "error":
                    raise value
                elif kind == "value":
                    result: T = value
                    return result
                control.check()
    finally:
        abandoned.set()


def run_in_thread(call: Callable[[Callable[[RunEvent], None]], T], on_event: Callable[[RunEvent], object]) -> T:
    """Run ``call(emit)`` in a thread; pass its events to ``on_event`` in the calling thread.

    Returns:
        The return value of ``call``.

    Raises:
        RunCancelled: the run was cancelled, or its deadline passed; raised without waiting for ``call``.
    """
    stream = stream_in_thread(call)
    try:
        while True:
            on_event(next(stream))
    except StopIteration as end:
        value: T = end.value
        return value
    finally:
        stream.close()


def _next(
    events: queue.SimpleQueue[tuple[str, Any]], control: RunContext, on_timeout: tuple[str, Any]
) -> tuple[str, Any]:
    remaining = control.remaining()
    try:
        return events.get(timeout=KEEP_ALIVE if remaining is None else min(remaining, KEEP_ALIVE))
    except queue.Empty:
        return on_timeout if control.reason is None else ("stop", None)
