"""Messages of thinking models on Databricks: content in parts, and signatures that have to be sent back.

A part of type ``reasoning`` holds the text of Claude's thinking with its signature, or thinking that is encrypted.
Databricks documents that it goes back unchanged in the next request. What else a tool call has, such as Gemini's
``thoughtSignature``, goes back with the call.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dspy.lm15 import ContinuationDelta, ContinuationState, Message, Response, ThinkingPart, ToolCallPart

_PROVIDER = "databricks"
_REASONING = "reasoning"
_CALL = "tool_call"
_PARTS = re.compile(r'"content"\s*:\s*\[|[sS]ignature"')
_CALL_KEYS = frozenset({"id", "type", "index", "function"})

States = Mapping[str, Sequence[ContinuationState]]


def has_parts(body: str) -> bool:
    """Return whether a body has a content in parts, or signatures."""
    return bool(_PARTS.search(body))


def flatten(message: Any) -> None:
    """Replace a content of parts by its text and its reasoning."""
    if not isinstance(message, dict) or not isinstance(message.get("content"), list):
        return
    parts = [part for part in message["content"] if isinstance(part, dict)]
    message["content"] = "".join(str(part.get("text") or "") for part in parts if part.get("type") == "text")
    if reasoning := "".join(str(summary.get("text") or "") for summary in _summaries(parts)):
        message["reasoning_content"] = reasoning


def states_of(message: Any) -> dict[str, list[ContinuationState]]:
    """Return the signed reasoning and the signature of the first tool call of a message, if it has any."""
    states: dict[str, list[ContinuationState]] = {}
    for delta in state_deltas(message):
        states.setdefault(delta.kind, []).append(ContinuationState(delta.provider, delta.kind, delta.data))
    signed = any(not {"signature", "data"}.isdisjoint(state.data) for state in states.get(_REASONING, ()))
    return states if signed else {kind: each for kind, each in states.items() if kind != _REASONING}


def state_deltas(message: Any) -> Iterator[ContinuationDelta]:
    """Yield the reasoning of a message or of a chunk as it has to go back, and what its tool calls have besides."""
    if not isinstance(message, Mapping):
        return
    content = message.get("content")
    for summary in _summaries(content if isinstance(content, list) else []):
        data = {key: value for key, value in summary.items() if value}
        if data.keys() & {"text", "signature", "data"}:
            yield ContinuationDelta(_PROVIDER, _REASONING, data, part_index=0)
    for call in message.get("tool_calls") or ():
        more = {key: value for key, value in call.items() if key not in _CALL_KEYS and value}
        if more:
            yield ContinuationDelta(_PROVIDER, _CALL, more, part_index=int(call.get("index") or 0))


def with_states(response: Response, states: States) -> Response:
    """Return a response whose first reasoning and first tool call have these states."""
    parts: list[Any] = list(response.message.parts)
    if states.get(_REASONING) and not any(isinstance(part, ThinkingPart) for part in parts):
        parts.insert(0, ThinkingPart(text=""))
    for kind, part_type in ((_REASONING, ThinkingPart), (_CALL, ToolCallPart)):
        first = next((index for index, part in enumerate(parts) if isinstance(part, part_type)), None)
        if first is not None and states.get(kind):
            parts[first] = replace(parts[first], continuation=tuple(states[kind]))
    return replace(response, message=replace(response.message, parts=tuple(parts)))


def with_signed_reasoning(wire: list[dict[str, Any]], messages: Iterable[Message]) -> list[dict[str, Any]]:
    """Return the messages for the endpoint, with the states of the messages that they were made from."""
    assistants = (message for message in messages if message.role == "assistant")
    return [_signed(each, next(assistants)) if each["role"] == "assistant" else each for each in wire]


def _signed(wire: dict[str, Any], message: Message) -> dict[str, Any]:
    if blocks := _blocks(_states(message, _REASONING)):
        text = "".join(part.text for part in message.parts if part.type == "text")
        texts = [{"type": "text", "text": text}] if text else []
        wire = {**wire, "content": [{"type": "reasoning", "summary": [block]} for block in blocks] + texts}
    if (more := _states(message, _CALL)) and wire.get("tool_calls"):
        first, *others = wire["tool_calls"]
        wire = {**wire, "tool_calls": [{**first, **more[0]}, *others]}
    return wire


def _states(message: Message, kind: str) -> list[dict[str, Any]]:
    """Return the states of the first part that has any: in a stream, all parts of the same index have the same."""
    for part in message.parts:
        states = [state for state in part.continuation if (state.provider, state.kind) == (_PROVIDER, kind)]
        if states:
            return [dict(state.data) for state in states]
    return []


def _blocks(pieces: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the signed blocks of reasoning; pieces of a stream are joined up to the signature that closes a block."""
    blocks: list[dict[str, Any]] = []
    text = ""
    for piece in pieces:
        if "data" in piece:
            blocks.append({"type": "summary_encrypted_text", "data": piece["data"]})
            continue
        text += str(piece.get("text", ""))
        if signature := piece.get("signature"):
            blocks.append({"type": "summary_text", "text": text, "signature": signature})
            text = ""
    return blocks


def _summaries(parts: Iterable[Any]) -> list[Mapping[str, Any]]:
    summaries = (part.get("summary") or [] for part in parts if isinstance(part, Mapping))
    return [summary for each in summaries for summary in each if isinstance(summary, Mapping)]
