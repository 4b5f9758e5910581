"""What an LM's API requires back of a reply in the next requests of a run: signed thinking and thought signatures.

Claude's thinking blocks and Gemini's function calls have signatures, GPT's reasoning items have ids. ``lm15`` keeps
them as the continuation of a message's parts, but DSPy's output of a call has no place for them. Here they travel in
the id of the reply's first function call, which DSPy keeps, in its cache too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from dspy.lm15 import ContinuationState, Message, Request, Response, ThinkingPart, ToolCallPart, ToolResultPart

State = dict[str, Any]

_MARK = "#oneturn:"
# Gemini 3 refuses an unsigned call in the current turn. Google documents this signature for calls of another origin.
_SIGNS_CALLS = re.compile(r"gemini-(?:[3-9]|\d\d)", re.IGNORECASE)
_UNSIGNED = ContinuationState("gemini", "thought_signature", {"value": "skip_thought_signature_validator"})


def with_state(response: Response) -> Response:
    """Return a response whose first function call has an id with the state that its API requires back."""
    parts = response.message.parts
    first = next((part for part in parts if isinstance(part, ToolCallPart)), None)
    if first is None:
        return response
    thinking = [[part.text, _dump(part)] for part in parts if isinstance(part, ThinkingPart) and part.continuation]
    if not thinking and not first.continuation:
        return response
    marked = replace(first, id=f"{first.id}{_MARK}{json.dumps({'thinking': thinking, 'call': _dump(first)})}")
    message = replace(response.message, parts=tuple(marked if part is first else part for part in parts))
    return replace(response, message=message)


def state_in(call_id: str | None) -> str:
    """Return the state in the id of a reply's first function call; empty if it has none."""
    return (call_id or "").partition(_MARK)[2]


def with_replayed(request: Request, states: Mapping[str, str]) -> Request:
    """Return a request whose assistant messages have the state of the replies that they repeat.

    Args:
        request: the request.
        states: the state by the id of the first function call of a message.
    """
    signs_calls = request.model is not None and bool(_SIGNS_CALLS.search(request.model))
    if not states and not signs_calls:
        return request
    question = max((index for index, each in enumerate(request.messages) if _is_question(each)), default=-1)
    messages = (
        _replayed(message, states, signs_calls and index > question) for index, message in enumerate(request.messages)
    )
    return replace(request, messages=tuple(messages))


def _replayed(message: Message, states: Mapping[str, str], must_sign: bool) -> Message:
    first = next((part for part in message.parts if isinstance(part, ToolCallPart)), None)
    if first is None or message.role != "assistant":
        return message
    state: State = json.loads(states.get(first.id, '{"thinking": [], "call": []}'))
    signature = _load(state["call"]) or ((_UNSIGNED,) if must_sign else ())
    thinking = [ThinkingPart(text=text, continuation=_load(states)) for text, states in state["thinking"]]
    rest = [part for part in message.parts if not (thinking and isinstance(part, ThinkingPart))]
    signed = [replace(part, continuation=signature) if part is first and signature else part for part in rest]
    return replace(message, parts=(*thinking, *signed))


def _is_question(message: Message) -> bool:
    return message.role == "user" and not any(isinstance(part, ToolResultPart) for part in message.parts)


def _dump(part: ThinkingPart | ToolCallPart) -> list[list[Any]]:
    return [[state.provider, state.kind, state.data] for state in part.continuation]


def _load(states: Iterable[Iterable[Any]]) -> tuple[ContinuationState, ...]:
    return tuple(ContinuationState(*state) for state in states)
