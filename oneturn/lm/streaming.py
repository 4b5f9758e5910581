"""Synchronous streaming of an LM's output through callbacks.

``dspy.streamify`` needs an event loop, and its listeners are stateful. Here the LM's engine is wrapped: it streams
internally, passes each delta to a callback and still returns one response. DSPy still does caching, retries, usage,
callbacks and history.
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
from oneturn.core.usage import with_inclusive_usage
from oneturn.lm.capabilities import known_capabilities

OnText = Callable[[str], None]
OnDelta = Callable[[Any], None]
"""Called with one ``lm15`` delta of a reply: text, thinking, a part of a tool call."""


class StreamingEngine:
    """A DSPy engine that streams its LM's replies to a callback.

    Args:
        lm: the LM that answers.
        on_reply: called at the start of each reply, retries included; returns the callback for the reply's deltas.
    """

    def __init__(self, lm: dspy.LM, on_reply: Callable[[], OnDelta]):
        self._lm = lm
        self._on_reply = on_reply
        capabilities = known_capabilities(lm)
        self.supports_function_calling = capabilities.function_calling
        self.supports_reasoning = capabilities.reasoning
        self.supports_response_schema = capabilities.response_schema
        self.supported_params = capabilities.params

    def complete(self, request: Request) -> Response:
        """Return the response to ``request`` from the LM's own engine, streamed if that engine can stream."""
        call = execution.prepare(self._lm, request, None, {})
        backend, canonical, provider = execution._engine(self._lm, call, False)
        if not hasattr(backend, "stream"):
            return with_inclusive_usage(backend.complete(canonical), provider)
        accumulator = StreamAccumulator(canonical)
        on_delta = self._on_reply()
        events = checked_stream(backend.stream(canonical), provider=provider)
        with closing_stream(events):
            for event in events:
                accumulator.push(event)
                if event.type == "delta":
                    on_delta(event.delta)
        return with_inclusive_usage(accumulator.response(), provider)


def tapped(lm: dspy.BaseLM, on_text: OnText) -> dspy.BaseLM:
    """Return a copy of ``lm`` that passes its text to ``on_text`` as it is generated, or ``lm`` if it can't stream."""

    def on_delta(delta: Any) -> None:
        if delta.type == "text":
            on_text(delta.text)

    return tapped_replies(lm, lambda: on_delta)


def tapped_replies(lm: dspy.BaseLM, on_reply: Callable[[], OnDelta]) -> dspy.BaseLM:
    """Return a copy of ``lm`` that passes every delta to a callback, one callback for each reply.

    Returns ``lm`` itself if it can't stream or the run doesn't ask for streaming. A subclass that overrides ``forward``
    handles its own connection and isn't wrapped.
    """
    if not current_run().streaming:
        return lm
    if not isinstance(lm, dspy.LM) or type(lm).forward is not dspy.LM.forward or lm.model_type == "text":
        return lm
    streaming = copy.copy(lm)
    streaming._engine_spec = StreamingEngine(lm, on_reply)
    return streaming
