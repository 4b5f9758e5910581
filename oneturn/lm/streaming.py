"""Synchronous streaming of an LM's output through callbacks.

``dspy.streamify`` needs an event loop, and its listeners are stateful. Here the LM's engine is wrapped: it streams
internally, passes each delta to a callback and still returns one response. DSPy still does caching, retries, usage,
callbacks and history.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import dspy
from dspy.lm15 import Request, Response, ResponseStream

from oneturn.core._dspy import EngineCall, StreamEvent, engine_call, uses_engine, with_engine
from oneturn.core.run_context import current_run
from oneturn.lm.capabilities import capabilities_of
from oneturn.lm.format_fallback import endpoint_of, send_with_fallback

OnText = Callable[[str], None]
OnDelta = Callable[[Any], None]
"""Called with one ``lm15`` delta of a reply: text, thinking, a part of a tool call."""


class StreamingEngine:
    """A DSPy engine that streams its LM's replies to a callback.

    Args:
        lm: the LM that answers.
        on_reply: called at the start of each reply, retries included; returns the callback for the reply's deltas.
        as_is: whether each request is sent unchanged; otherwise a refused response format is weakened.
    """

    def __init__(self, lm: dspy.LM, on_reply: Callable[[], OnDelta], as_is: bool = False):
        self.lm = lm
        self._on_reply = on_reply
        self._as_is = as_is
        vars(self).update(capabilities_of(lm))  # DSPy asks the engine of an LM for the capabilities

    def complete(self, request: Request) -> Response:
        """Return the response to ``request`` from the LM's own engine, streamed if that engine can stream."""
        return self._send(request) if self._as_is else send_with_fallback(endpoint_of(self.lm), request, self._send)

    def _send(self, request: Request) -> Response:
        call = engine_call(self.lm, request)
        call = unchanged(call) if self._as_is else call
        if not hasattr(call.engine, "stream"):
            return call.with_inclusive_usage(call.engine.complete(call.request))
        on_delta = self._on_reply()
        with ResponseStream(separate_calls(call.engine.stream(call.request)), call.request) as stream:
            for event in stream.events():
                if event.type == "delta":
                    on_delta(event.delta)
            return call.with_inclusive_usage(stream.response)


def unchanged(call: EngineCall) -> EngineCall:
    """Return a call whose engine sends the request unchanged; an engine that may change it has ``as_is`` for that."""
    return replace(call, engine=getattr(call.engine, "as_is", call.engine))


def separate_calls(events: Iterator[StreamEvent]) -> Iterator[StreamEvent]:
    """Yield the events of a stream with one index for each function call.

    Some servers, such as Gemini's for OpenAI's API, send all parallel calls with index 0.
    """
    ids: dict[int, str] = {}
    moved: dict[int, int] = {}
    for event in events:
        if event.type != "delta" or event.delta.type != "tool_call":
            yield event
            continue
        delta = event.delta
        index = moved.get(delta.part_index, delta.part_index)
        if delta.id and delta.name and ids.get(index, delta.id) != delta.id:
            index = moved[delta.part_index] = max(ids) + 1
        if delta.id:
            ids[index] = delta.id
        yield event if index == delta.part_index else replace(event, delta=replace(delta, part_index=index))


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
    return with_engine(lm, StreamingEngine(lm, on_reply)) if uses_engine(lm) else lm
