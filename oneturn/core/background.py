"""Run a function in a background thread and stream its events; run an async function on a shared event loop."""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import os
import queue
import threading
import time
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import Future
from typing import Any, TypeVar

import anyio
from anyio.from_thread import BlockingPortal

from oneturn.core.run_context import RunContext, current_run
from oneturn.errors import AgentError

KEEP_ALIVE = 10.0
"""Seconds without an event after which a keep-alive is sent; below the idle timeout of common proxies."""

GATHER = 0.01
"""Seconds for which events that follow each other faster than that are gathered, where a caller allows it.

Each time that a thread waits for one event, and wakes for it, costs more than the event.
"""

T = TypeVar("T")
RunEvent = TypeVar("RunEvent")


class ConsumerGone(BaseException):
    """The event stream was closed: stop the run.

    A ``BaseException``, so that ``except Exception`` in a program or in DSPy doesn't catch it.
    """


def stream_in_thread(
    call: Callable[[Callable[[RunEvent], None]], T],
    alive: Any = None,
    gathers: Callable[[], bool] = lambda: False,
) -> Generator[RunEvent, None, T]:
    """Run ``call(emit)`` in a thread, in a run context of its own; yield the events it emits.

    A cancellation of the run, or the end of the generator, cancels that context: it interrupts what waits in the call,
    such as an LM's connection, and the next ``emit`` raises ``ConsumerGone``.

    Args:
        call: the function to run; it calls ``emit`` with each event.
        alive: the event to yield after each ``KEEP_ALIVE`` seconds without one, if given.
        gathers: whether the next events may be late by ``GATHER``, asked before each wait for one.

    Returns:
        The return value of ``call``.

    Raises:
        RunCancelled: the run was cancelled, or its deadline passed. Exceptions of ``call`` propagate.
        AgentError: too many calls that can't be interrupted were abandoned and are still running.
    """
    events: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
    control = current_run()
    control.check()
    check_abandoned()
    inner = RunContext(parent=control, on_progress=control.on_progress)

    def emit(event: RunEvent) -> None:
        if inner.reason is not None:
            raise ConsumerGone
        events.put(("event", event))

    def work() -> None:
        try:
            with inner.active():
                events.put(("value", call(emit)))
        except BaseException as error:  # raised in the consumer's thread
            events.put(("error", error))

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(work,), name="oneturn-run", daemon=True)
    thread.start()
    ended = False
    on_timeout = ("event", alive) if alive is not None else ("stop", None)
    waited = GATHER
    try:
        with control.waking(lambda: events.put(("stop", None))):
            while True:
                start = time.monotonic()
                if waited < GATHER and events.empty() and gathers():
                    time.sleep(GATHER)
                kind, value = _next(events, control, on_timeout)
                waited = time.monotonic() - start
                ended = kind in ("value", "error")
                if kind == "event":
                    yield value
                elif kind == "error":
                    if isinstance(value, ConsumerGone):
                        control.check()
                    raise value
                elif kind == "value":
                    result: T = value
                    return result
                control.check()
    finally:
        if ended:
            inner.cancel("ended")
        else:
            abandon(thread, inner)


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


MAX_ABANDONED = 64
"""How many calls may go on in their threads after nobody waits for them, because nothing can interrupt them."""

_RETRY_SECONDS = 5.0
_abandoned: set[threading.Thread] = set()
_abandoned_lock = threading.Lock()


def abandon(thread: threading.Thread, run: RunContext, reason: str = "abandoned") -> None:
    """Cancel the run of a call that nobody waits for; count its thread while the call still runs.

    Args:
        thread: the call's thread.
        run: the call's own run context.
        reason: why, for a tool that asks its context.
    """
    interruptible = run.interruptible
    run.cancel(reason)
    if not interruptible:
        with _abandoned_lock:
            _abandoned.add(thread)


def check_abandoned() -> None:
    """Refuse a new call if too many calls were abandoned and are still running: each holds a thread and its memory.

    Raises:
        AgentError: with HTTP status 503, and when to retry.
    """
    if len(_abandoned) < MAX_ABANDONED:
        return
    with _abandoned_lock:
        _abandoned.difference_update([thread for thread in _abandoned if not thread.is_alive()])
        running = len(_abandoned)
    if running >= MAX_ABANDONED:
        raise AgentError(
            f"{running} calls of an LM or a tool that can't be interrupted are still running after their requests "
            "ended; retry later.",
            "overloaded",
            503,
            retry_after=_RETRY_SECONDS,
            retryable=True,
        )


_START_SECONDS = 10.0
_STOP_SECONDS = 3.0
_portal: BlockingPortal | None = None
_portal_lock = threading.Lock()


def run_async(function: Callable[..., Awaitable[T]], *args: Any, timeout: float | None = None) -> T:
    """Run an async function on the process's background event loop and return its result.

    All callers share the loop, so ``function`` must not block it. It sees the caller's context variables, such as the
    run and ``dspy.context``. It is cancelled if the current run has to stop, or after ``timeout`` seconds.

    Args:
        function: the async function.
        *args: its arguments.
        timeout: time limit in seconds, in addition to the run's deadline.

    Raises:
        RunCancelled: the run was cancelled, or its deadline passed; raised without waiting for ``function``.
        concurrent.futures.TimeoutError: ``timeout`` has passed; raised without waiting for ``function``. Exceptions of
            ``function`` propagate.
    """
    run = current_run()
    limits = [limit for limit in (timeout, run.remaining()) if limit is not None]
    future = _event_loop().start_task_soon(_outcome, function, args)
    try:
        with run.waking(future.cancel):
            run.check()
            value, error = future.result(min(limits, default=None))
    except BaseException:
        run.check()  # the call failed because the run has to stop
        raise
    finally:
        future.cancel()
    if error is not None:
        raise error
    result: T = value
    return result


async def _outcome(function: Callable[..., Awaitable[T]], args: tuple[Any, ...]) -> tuple[Any, BaseException | None]:
    """Return the result, or an exception that would end the loop for all callers if it was raised in it."""
    try:
        return await function(*args), None
    except (Exception, asyncio.CancelledError):
        raise
    except BaseException as error:
        return None, error


def _event_loop() -> BlockingPortal:
    global _portal
    with _portal_lock:
        if _portal is None:
            started: Future[BlockingPortal] = Future()
            # Not start_blocking_portal: at exit it waits for its thread, which a forked process doesn't have.
            thread = threading.Thread(
                target=anyio.run, args=(_run_portal, started), name="oneturn-event-loop", daemon=True
            )
            thread.start()
            _portal = started.result(_START_SECONDS)
            atexit.register(_stop, _portal, thread)
        return _portal


async def _run_portal(started: Future[BlockingPortal]) -> None:
    async with BlockingPortal() as portal:
        started.set_result(portal)
        await portal.sleep_until_stopped()


def _stop(portal: BlockingPortal, thread: threading.Thread) -> None:
    """Cancel what still runs on the loop, and wait a moment for its cleanup."""
    if portal is _portal:  # in a forked process, it is the parent's
        portal.call(portal.stop, True)
        thread.join(_STOP_SECONDS)


def _forget_loop() -> None:
    global _portal, _portal_lock
    _portal, _portal_lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget_loop)
