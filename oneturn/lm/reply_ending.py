"""Replies that an LM didn't end itself: cut at its token limit, filtered, or refused.

DSPy returns such a reply as text like any other, and caches it. Here it raises ``ReplyEnded``, so it is neither parsed
as an answer nor cached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import dspy
from dspy.lm15 import RefusalPart, Request, Response, ResponseStream, TextPart, response_to_events
from dspy.utils.exceptions import LMError

from oneturn.core._dspy import StreamEvent, engine_call, usage_dict, uses_engine, with_engine
from oneturn.core.run_context import current_run
from oneturn.lm.capabilities import capabilities_of
from oneturn.lm.streaming import OnDelta, StreamingEngine

Ending = Literal["max_output_tokens", "content_filter", "refusal"]


class ReplyEnded(LMError):
    """A reply ended before the LM was done.

    Args:
        ending: ``"max_output_tokens"``, ``"content_filter"`` or ``"refusal"``.
        text: what was written; the reason of a refusal.
        usage: the usage of the call, in DSPy's format.
    """

    def __init__(self, ending: Ending, text: str, usage: dict[str, Any]):
        super().__init__(f"The reply ended early: {ending}.")
        self.ending = ending
        self.text = text
        self.usage = usage


class ReplyCheck:
    """A DSPy engine that wraps the engine of an LM and checks how each reply ended.

    Args:
        lm: the LM that answers.
        is_complete: whether a text is a complete reply; such a reply counts even at the token limit.
        on_delta: called with each delta while the reply is written, if the LM and the run stream.

    Attributes:
        called: whether the LM was asked; if not, DSPy's cache answered.
    """

    def __init__(self, lm: dspy.LM, is_complete: Callable[[str], bool], on_delta: OnDelta | None = None):
        self.lm = lm
        self._is_complete = is_complete
        self._on_delta = on_delta if current_run().streaming else None
        self.called = False
        vars(self).update(capabilities_of(lm))  # DSPy asks the engine of an LM for the capabilities

    def complete(self, request: Request) -> Response:
        """Return the response of the LM's own engine.

        Raises:
            ReplyEnded: the reply was cut, filtered or refused.
        """
        self.called = True
        return self._check(self._complete(request))

    def stream(self, request: Request) -> Iterator[StreamEvent]:
        """Yield the events of the LM's own engine, for a program that contains this one and streams it.

        Raises:
            ReplyEnded: the reply was cut, filtered or refused.
        """
        self.called = True
        call = engine_call(self.lm, request)
        if not hasattr(call.engine, "stream"):
            yield from response_to_events(self._check(call.engine.complete(call.request)))
            return
        with ResponseStream(call.engine.stream(call.request), call.request) as stream:
            yield from stream.events()
            self._check(stream.response)

    def _check(self, response: Response) -> Response:
        text = "".join(part.text for part in response.message.parts if isinstance(part, TextPart))
        refusals = [part.text for part in response.message.parts if isinstance(part, RefusalPart)]
        if refusals and not text.strip():
            raise ReplyEnded("refusal", "".join(refusals), usage_dict(response))
        if response.finish_reason == "content_filter":
            raise ReplyEnded("content_filter", text, usage_dict(response))
        if response.finish_reason == "length" and not self._is_complete(text):
            raise ReplyEnded("max_output_tokens", text, usage_dict(response))
        return response

    def _complete(self, request: Request) -> Response:
        if self._on_delta is not None:
            on_delta = self._on_delta
            response = StreamingEngine(self.lm, lambda: on_delta).complete(request)
            if response.finish_reason != "stop" or _has_content(response):
                return response
            # lm15 doesn't read refusals in a stream, and some servers' content; without a stream it reads both.
        call = engine_call(self.lm, request)
        return call.with_inclusive_usage(call.engine.complete(call.request))


def with_reply_check(
    lm: dspy.BaseLM, is_complete: Callable[[str], bool], on_delta: OnDelta | None = None
) -> tuple[dspy.BaseLM, ReplyCheck | None]:
    """Return a copy of ``lm`` with a :class:`ReplyCheck`; ``lm`` and ``None`` if it handles its own connection."""
    if not uses_engine(lm):
        return lm, None
    check = ReplyCheck(lm, is_complete, on_delta)
    return with_engine(lm, check), check


def _has_content(response: Response) -> bool:
    return any(
        not isinstance(part, TextPart) or part.text for part in response.message.parts if part.type != "thinking"
    )
