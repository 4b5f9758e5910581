"""What an LM writes, watched while it is being written.

DSPy's own way to stream (``dspy.streamify``) needs an event loop, and its listeners are stateful. This
one is synchronous: the LM's engine is wrapped so that it streams inside and still returns one response,
the call runs in a thread of its own with the caller's context, and what happens arrives through a queue.
Caching, retries, usage, callbacks and history stay DSPy's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import dspy
from dspy._vendor.lm15.result import StreamAccumulator
from dspy.clients import execution
from dspy.clients.engines.lifecycle import closing_stream
from dspy.clients.engines.stream_guard import checked_stream
from dspy.lm15 import Request, Response

from oneturn.core.run_context import current_run
from oneturn.lm.capabilities import known_capabilities

OnText = Callable[[str], None]
OnDelta = Callable[[Any], None]
"""Takes one piece of a reply, an ``lm15`` delta: text, thinking, a part of a tool call."""


class EngineTap:
    """An engine that tells what its LM writes (DSPy's engine interface).

    Args:
        lm: the LM that answers.
        on_reply: called at the beginning of each reply, a retried one too; what it gives takes the reply's pieces.
    """

    def __init__(self, lm: dspy.LM, on_reply: Callable[[], OnDelta]):
        self._lm = lm
        self._on_reply = on_reply
        can = known_capabilities(lm)
        self.supports_function_calling = can.function_calling
        self.supports_reasoning = can.reasoning
        self.supports_response_schema = can.response_schema
        self.supported_params = can.params

    def complete(self, request: Request) -> Response:
        """Answer one request through the LM's own engine, streaming where that engine can."""
        call = execution.prepare(self._lm, request, None, {})
        backend, canonical, provider = execution._engine(self._lm, call, False)
        if not hasattr(backend, "stream"):
            return backend.complete(canonical)
        accumulator = StreamAccumulator(canonical)
        on_delta = self._on_reply()
        events = checked_stream(backend.stream(canonical), provider=provider)
        with closing_stream(events):
            for event in events:
                accumulator.push(event)
                if event.type == "delta":
                    on_delta(event.delta)
        return accumulator.response()


def tapped(lm: dspy.BaseLM, on_text: OnText) -> dspy.BaseLM:
    """A view of ``lm`` that tells its text while it is written; ``lm`` itself where it can't stream."""

    def on_delta(delta: Any) -> None:
        if delta.type == "text":
            on_text(delta.text)

    return tapped_replies(lm, lambda: on_delta)


def tapped_replies(lm: dspy.BaseLM, on_reply: Callable[[], OnDelta]) -> dspy.BaseLM:
    """A view of ``lm`` that tells all it writes, reply by reply; ``lm`` itself where it can't or needn't stream.

    Subclasses that override ``forward`` own their connection and are called as they are.
    """
    if not current_run().streaming:
        return lm
    if not isinstance(lm, dspy.LM) or type(lm).forward is not dspy.LM.forward or lm.model_type == "text":
        return lm
    view = copy.copy(lm)
    view._engine_spec = EngineTap(lm, on_reply)
    return view
