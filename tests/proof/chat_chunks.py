"""Agents that speak chat completions: any sequence of chunks, with a failure at any point."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

from tests.proof.failures import errors
from tests.proof.written import Raise, texts

ids = st.sampled_from(["call_0", "call_0", "call_1", None])
usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


def _chunk(id: str, delta: dict[str, Any], used: bool) -> dict[str, Any]:
    choices = [{"index": 0, "delta": delta, "finish_reason": None}]
    made = {"id": id, "object": "chat.completion.chunk", "created": 0, "model": "some/lm", "choices": choices}
    return {**made, "usage": usage} if used else made


def _part(index: int, id: str | None, name: str | None, written: str | None) -> dict[str, Any]:
    return {"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": written}}


parts = st.builds(
    _part,
    st.integers(0, 1),
    ids,
    st.sampled_from(["look_up", None]),
    st.sampled_from(["{}", '{"word": ', '"tea"}', "", None, "NaN", '{"word": NaN}', "[1]", '{"word": "\\ud800"}']),
)
deltas = st.one_of(
    st.builds(lambda text: {"content": text}, st.none() | texts),
    st.builds(lambda made: {"tool_calls": made}, st.lists(parts, min_size=1, max_size=2)),
    st.builds(lambda id, text: {"role": "tool", "tool_call_id": id, "name": "f", "content": text}, ids, texts),
    st.sampled_from([{}, {"role": "assistant", "content": ""}, {"refusal": "No."}]),
)
chunks = st.builds(_chunk, st.sampled_from(["c1", "c2"]), deltas, st.booleans())
odd_chunks = st.sampled_from([{}, {"choices": []}, 3, None, {"choices": [{}]}, {"choices": None}])
chats = st.lists(
    st.one_of(chunks, chunks, chunks, chunks, chunks, chunks, odd_chunks, st.builds(Raise, errors)), max_size=8
).map(tuple)


def said(chat: tuple[Any, ...]) -> Iterator[Any]:
    """The chunks, one by one; a failure where one is."""
    for chunk in chat:
        if isinstance(chunk, Raise):
            raise chunk.error()
        yield chunk
