"""Requests whose response format is refused are sent with a weaker one: JSON mode, then none.

DSPy's ``JSONAdapter`` describes the outputs in its prompt, too, so a program works without the schema. A refusal is
remembered for this schema; other programs on the same endpoint keep theirs. ``oneturn.ReAct`` has fallbacks of its own.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import dspy
from dspy.lm15 import LM15Error, Request, Response

from oneturn.core._dspy import StreamEvent, engine_call, uses_engine, with_engine
from oneturn.lm.capabilities import capabilities_of, is_engine_format_refusal

T = TypeVar("T")

_refused: set[tuple[str, str]] = set()


def send_with_fallback(endpoint: str, request: Request, send: Callable[[Request], T]) -> T:
    """Return what ``send`` returns for the request, with the first response format that isn't refused.

    Args:
        endpoint: identifies the LM's endpoint, for which a refusal is remembered.
        request: the request.
        send: sends a request; it raises lm15 errors.

    Raises:
        LM15Error: the request is refused for another reason, or without a response format, too.
    """
    *stronger, last = _candidates(endpoint, request)
    for candidate in stronger:
        try:
            return send(candidate)
        except LM15Error as error:
            _remember(endpoint, candidate, error)
    return send(last)


async def asend_with_fallback(endpoint: str, request: Request, send: Callable[[Request], Awaitable[T]]) -> T:
    """Return what ``send`` returns, as :func:`send_with_fallback` does.

    Raises:
        LM15Error: as :func:`send_with_fallback`.
    """
    *stronger, last = _candidates(endpoint, request)
    for candidate in stronger:
        try:
            return await send(candidate)
        except LM15Error as error:
            _remember(endpoint, candidate, error)
    return await send(last)


class FormatFallback:
    """A DSPy engine that wraps the engine of an LM and sends a refused request with a weaker response format.

    Args:
        lm: the LM that answers.
    """

    def __init__(self, lm: dspy.LM):
        self.lm = lm
        vars(self).update(capabilities_of(lm))  # DSPy asks the engine of an LM for the capabilities

    def complete(self, request: Request) -> Response:
        """Return the response of the LM's own engine."""

        def send(candidate: Request) -> Response:
            call = engine_call(self.lm, candidate)
            return call.with_inclusive_usage(call.engine.complete(call.request))

        return send_with_fallback(endpoint_of(self.lm), request, send)

    def stream(self, request: Request) -> Iterator[StreamEvent]:
        """Yield the events of the LM's own engine."""

        def send(candidate: Request) -> tuple[StreamEvent, Iterator[StreamEvent]]:
            call = engine_call(self.lm, candidate)
            events = iter(call.engine.stream(call.request))
            return next(events), events  # a refusal is raised here, before any event

        first, events = send_with_fallback(endpoint_of(self.lm), request, send)
        yield first
        yield from events


def with_format_fallback(lm: dspy.BaseLM) -> dspy.BaseLM:
    """Return a copy of ``lm`` with a :class:`FormatFallback`; ``lm`` itself if it handles its own connection."""
    return with_engine(lm, FormatFallback(lm)) if uses_engine(lm) else lm


def endpoint_of(lm: dspy.LM) -> str:
    """Return what identifies the LM's endpoint."""
    return f"{lm.model} {lm.kwargs.get('api_base') or lm.kwargs.get('base_url') or ''}"


def _candidates(endpoint: str, request: Request) -> list[Request]:
    weaker: dict[Any, list[Any]] = {"json_schema": [{"type": "json_object"}, None], "json_object": [None]}
    asked = request.config.response_format
    formats = [asked, *weaker.get((asked or {}).get("type"), [])]
    *stronger, last = [replace(request, config=replace(request.config, response_format=each)) for each in formats]
    return [each for each in stronger if (endpoint, _key(each)) not in _refused] + [last]


def _remember(endpoint: str, request: Request, error: LM15Error) -> None:
    """Remember a refusal of the response format.

    Raises:
        LM15Error: the request was refused for another reason.
    """
    if not is_engine_format_refusal(error):
        raise error
    _refused.add((endpoint, _key(request)))


def _key(request: Request) -> str:
    return json.dumps(request.config.response_format, sort_keys=True, default=str)
