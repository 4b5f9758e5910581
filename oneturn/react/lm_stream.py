"""One LM call whose text can be watched while it is being written.

DSPy's own way to stream (``dspy.streamify``) needs an event loop, and its listeners are stateful. This
one is synchronous: the LM's engine is wrapped so that it streams inside and still returns one response,
the call runs in a thread of its own with the caller's context, and the text arrives through a queue.
Caching, retries, usage, callbacks and history stay DSPy's.
"""

from __future__ import annotations

import contextvars
import copy
import queue
import threading
from collections.abc import Callable, Generator
from typing import Any, TypeVar

import dspy
from dspy._vendor.lm15.result import StreamAccumulator
from dspy.clients import execution
from dspy.clients.engines.lifecycle import closing_stream
from dspy.clients.engines.stream_guard import checked_stream
from dspy.lm15 import Request, Response

from oneturn.control import RunControl, current

T = TypeVar("T")
OnText = Callable[[str], None]


class _Abandoned(Exception):
    """The reader went away: stop the LM's stream."""


class TextTap:
    """An engine that tells ``on_text`` every piece of text its LM writes (DSPy's engine interface)."""

    def __init__(self, lm: dspy.LM, on_text: OnText):
        self._lm = lm
        self._on_text = on_text
        self.supports_function_calling = lm.supports_function_calling
        self.supports_reasoning = lm.supports_reasoning
        self.supports_response_schema = lm.supports_response_schema
        self.supported_params = lm.supported_params

    def complete(self, request: Request) -> Response:
        """Answer one request through the LM's own engine, streaming where that engine can."""
        call = execution.prepare(self._lm, request, None, {})
        backend, canonical, provider = execution._engine(self._lm, call, False)
        if not hasattr(backend, "stream"):
            return backend.complete(canonical)
        accumulator = StreamAccumulator(canonical)
        events = checked_stream(backend.stream(canonical), provider=provider)
        with closing_stream(events):
            for event in events:
                accumulator.push(event)
                if event.type == "delta" and event.delta.type == "text":
                    self._on_text(event.delta.text)
        return accumulator.response()


def tapped(lm: dspy.BaseLM, on_text: OnText) -> dspy.BaseLM:
    """A view of ``lm`` that tells its text while it is written; ``lm`` itself where it can't stream.

    Subclasses that override ``forward`` own their connection and are called as they are.
    """
    if not isinstance(lm, dspy.LM) or type(lm).forward is not dspy.LM.forward or lm.model_type == "text":
        return lm
    view = copy.copy(lm)
    view._engine_spec = TextTap(lm, on_text)
    return view


def watch(call: Callable[[OnText], T]) -> Generator[str, None, T]:
    """Run ``call(on_text)`` in a thread; yield the text it reports, return what it returns.

    Raises whatever ``call`` raises, and ``RunCancelled`` when the run has to stop. Then, and when the generator is
    closed, the next ``on_text`` fails, which ends the LM's stream.
    """
    events: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
    abandoned = threading.Event()
    control = current()
    control.check()

    def on_text(text: str) -> None:
        if abandoned.is_set():
            raise _Abandoned
        events.put(("text", text))

    def work() -> None:
        try:
            events.put(("value", call(on_text)))
        except BaseException as error:  # handed over to the reader's thread, which raises it
            events.put(("error", error))

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(work,), name="oneturn-lm", daemon=True).start()
    try:
        with control.waking(lambda: events.put(("stop", None))):
            while True:
                kind, value = _next(events, control)
                if kind == "text":
                    yield value
                elif kind == "error":
                    raise value
                elif kind == "value":
                    result: T = value
                    return result
                control.check()
    finally:
        abandoned.set()


def _next(events: queue.SimpleQueue[tuple[str, Any]], control: RunControl) -> tuple[str, Any]:
    try:
        return events.get(timeout=control.remaining())
    except queue.Empty:
        return "stop", None
