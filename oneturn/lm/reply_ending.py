"""Replies that an LM didn't end itself: cut at its token limit, filtered, or refused.

DSPy returns such a reply as text like any other, and caches it. Here it raises ``ReplyEnded``, so it is neither parsed
as an answer nor cached.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import dspy
from dspy.lm15 import (
    CacheConfig,
    RefusalPart,
    Request,
    Response,
    ResponseStream,
    ServerError,
    TextPart,
    ToolCallPart,
    response_to_events,
)
from dspy.utils.exceptions import LMError

from oneturn.core._dspy import (
    StreamEvent,
    engine_call,
    owns_forward,
    usage_dict,
    uses_engine,
    with_checked_forward,
    with_engine,
)
from oneturn.core.run_context import current_run
from oneturn.lm.capabilities import capabilities_of
from oneturn.lm.endings import Ending, finish_reason
from oneturn.lm.replay import with_replayed, with_state
from oneturn.lm.streaming import OnDelta, StreamingEngine, unchanged

_MARKS_ITS_CACHE = "anthropic/"  # other APIs cache the beginning of a prompt by themselves


class ReplyEnded(LMError):
    """A reply ended before the LM was done.

    Args:
        ending: ``"max_output_tokens"``, ``"content_filter"`` or ``"refusal"``.
        text: what was written, a function call as ``{"name": …, "arguments": …`` in JSON; the reason of a refusal.
        usage: the usage of the call, in DSPy's format.
    """

    def __init__(self, ending: Ending, text: str, usage: dict[str, Any]):
        super().__init__(f"The reply ended early: {ending}.")
        self.ending = ending
        self.text = text
        self.usage = usage


class ReplyCheck:
    """A DSPy engine that wraps the engine of an LM and checks how each reply ended.

    It also keeps what the LM's API requires back of a reply: see :mod:`oneturn.lm.replay`.

    Args:
        lm: the LM that answers.
        is_complete: whether a text is a complete reply; such a reply counts even at the token limit.
        on_delta: called with each delta while the reply is written, if the LM and the run stream.
        states: what the LM's API requires back, by the id of the first function call of a message; it may be filled
            later.
    """

    def __init__(
        self,
        lm: dspy.LM,
        is_complete: Callable[[str], bool],
        on_delta: OnDelta | None = None,
        states: Mapping[str, str] | None = None,
    ):
        self.lm = lm
        self._is_complete = is_complete
        self._states = {} if states is None else states
        self._on_delta = on_delta if current_run().streaming else None
        vars(self).update(capabilities_of(lm))  # DSPy asks the engine of an LM for the capabilities

    def complete(self, request: Request) -> Response:
        """Return the response of the LM's own engine.

        Raises:
            ReplyEnded: the reply was cut, filtered or refused.
        """
        return self._check(self._complete(self._prepare(request)))

    def stream(self, request: Request) -> Iterator[StreamEvent]:
        """Yield the events of the LM's own engine, for a program that contains this one and streams it.

        Raises:
            ReplyEnded: the reply was cut, filtered or refused.
        """
        call = unchanged(engine_call(self.lm, self._prepare(request)))
        if not hasattr(call.engine, "stream"):
            yield from response_to_events(self._check(call.engine.complete(call.request)))
            return
        with ResponseStream(call.engine.stream(call.request), call.request) as stream:
            yield from stream.events()
            self._check(stream.response)

    def _prepare(self, request: Request) -> Request:
        """Return the request with what the API requires back, and for Claude with marks up to where it caches."""
        request = with_replayed(request, self._states)
        if not self.lm.model.startswith(_MARKS_ITS_CACHE) or request.config.cache is not None:
            return request
        return replace(request, config=replace(request.config, cache=CacheConfig(prefix="history")))

    def _check(self, response: Response) -> Response:
        check_ending(response, self._is_complete)
        return with_state(response)

    def _complete(self, request: Request) -> Response:
        if self._on_delta is not None:
            on_delta = self._on_delta
            response = StreamingEngine(self.lm, lambda: on_delta, as_is=True).complete(request)
            if response.finish_reason != "stop" or _has_content(response):
                return response
            # lm15 doesn't read refusals in a stream, and some servers' content; without a stream it reads both.
            if tracker := dspy.settings.usage_tracker:
                tracker.add_usage(self.lm.model, usage_dict(response))
        call = unchanged(engine_call(self.lm, request))
        return call.with_inclusive_usage(call.engine.complete(call.request))


def with_reply_check(
    lm: dspy.BaseLM,
    is_complete: Callable[[str], bool],
    on_delta: OnDelta | None = None,
    states: Mapping[str, str] | None = None,
) -> dspy.BaseLM:
    """Return a copy of ``lm`` whose replies are checked: with a :class:`ReplyCheck`, or around its own ``forward``."""
    if uses_engine(lm):
        return with_engine(lm, ReplyCheck(lm, is_complete, on_delta, states))
    if owns_forward(lm):
        return with_checked_forward(lm, lambda response: check_ending(response, is_complete))
    return lm


def check_ending(response: Response, is_complete: Callable[[str], bool]) -> None:
    """Check how a reply ended.

    Args:
        response: the reply.
        is_complete: whether a text is a complete reply; such a reply counts even at the token limit.

    Raises:
        ReplyEnded: the reply was cut, filtered or refused.
        ServerError: the provider failed while it wrote the reply.
    """
    text = "".join(part.text for part in response.message.parts if isinstance(part, TextPart))
    refusals = [part.text for part in response.message.parts if isinstance(part, RefusalPart)]
    if refusals and not text.strip():
        raise ReplyEnded("refusal", "".join(refusals), usage_dict(response))
    if response.finish_reason == "content_filter":
        raise ReplyEnded("content_filter", text, usage_dict(response))
    if response.finish_reason == "error":
        raise ServerError("The provider ended the reply with finish_reason 'error'.")
    if _is_cut(response) and not _is_whole(response, text, is_complete):
        raise ReplyEnded("max_output_tokens", text or _written_call(response), usage_dict(response))


def _is_whole(response: Response, text: str, is_complete: Callable[[str], bool]) -> bool:
    """Whether a reply at the token limit has all its calls, or its text is complete."""
    calls = [part for part in response.message.parts if isinstance(part, ToolCallPart)]
    return not any(_PARTIAL in call.input for call in calls) if calls else is_complete(text)


_PARTIAL = "partial_json"  # lm15's key for arguments that aren't JSON


def _is_cut(response: Response) -> bool:
    """Whether a reply was cut at the token limit. lm15 doesn't say so of a reply with function calls."""
    data = response.provider_data or {}
    choices = data.get("choices") or [{}]
    raw = [data.get("stop_reason"), choices[0].get("finish_reason") if isinstance(choices[0], dict) else None]
    return response.finish_reason == "length" or any(finish_reason(str(name)) == "length" for name in raw)


def _written_call(response: Response) -> str:
    """Return the last function call of a cut reply as it was written; empty if there is none."""
    calls = [part for part in response.message.parts if isinstance(part, ToolCallPart)]
    if not calls or not isinstance(written := calls[-1].input.get(_PARTIAL), str):
        return ""
    return f'{{"name": {json.dumps(calls[-1].name)}, "arguments": {written}'


def _has_content(response: Response) -> bool:
    return any(
        not isinstance(part, TextPart) or part.text for part in response.message.parts if part.type != "thinking"
    )
