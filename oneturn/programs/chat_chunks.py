"""Chat completion chunks: their plain form, and what is put together from many of them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import json_repair
from dspy.utils.usage_tracker import UsageTracker

from oneturn.errors import ProgramError
from oneturn.steps import ToolCall


def plain(chunk: Any) -> Mapping[str, Any]:
    """A chunk as a mapping: a dict as it is, ``openai``'s and MLflow's objects by their own dump.

    Raises:
        ProgramError: it is something else.
    """
    if isinstance(chunk, Mapping):
        return chunk
    for dump in ("model_dump", "to_dict"):
        if hasattr(chunk, dump):
            dumped: Mapping[str, Any] = getattr(chunk, dump)()
            return dumped
    raise ProgramError(f"{chunk!r:.80} is no chat completion chunk; yield dicts, or openai's or MLflow's chunks.")


class PendingCalls:
    """Tool calls that are still being written: their arguments come in pieces, by index."""

    def __init__(self) -> None:
        self._pending: dict[int, dict[str, str]] = {}

    def add(self, part: Mapping[str, Any]) -> Iterator[ToolCall]:
        """Take a part of a call; give the calls that it shows to be finished."""
        index = part.get("index") or 0
        call_id = part.get("id")
        if call_id and self._pending.get(index, {}).get("id", call_id) != call_id:
            yield from self.finished()
        call = self._pending.setdefault(
            index, {"id": call_id or f"call_{uuid.uuid4().hex[:24]}", "name": "", "arguments": ""}
        )
        function = part.get("function") or {}
        call["name"] += function.get("name") or ""
        call["arguments"] += function.get("arguments") or ""

    def finished(self) -> Iterator[ToolCall]:
        """All the calls: nothing of them will follow."""
        pending, self._pending = self._pending, {}
        for _, call in sorted(pending.items()):
            yield ToolCall(call["id"], call["name"], _arguments(call["arguments"]))


class ChatUsage:
    """What the chunks say of their cost: the last word of each completion counts."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[str, Mapping[str, Any]]] = {}
        self._completions: set[str] = set()

    @property
    def lm_calls(self) -> int:
        """The completions that there were."""
        return len(self._completions)

    def add(self, chunk: Mapping[str, Any]) -> None:
        """Take what a chunk says."""
        completion = str(chunk.get("id") or "")
        self._completions.add(completion)
        if chunk.get("usage"):
            self._said[completion] = (str(chunk.get("model") or "chat"), chunk["usage"])

    def tokens(self) -> dict[str, dict[str, Any]]:
        """Token counts by LM."""
        tracker = UsageTracker()
        for model, usage in self._said.values():
            tracker.add_usage(model, dict(usage))
        total: dict[str, dict[str, Any]] = tracker.get_total_tokens()
        return total


def _arguments(written: str) -> dict[str, Any]:
    found = json_repair.loads(written) if written.strip() else {}
    return found if isinstance(found, dict) else {"arguments": written}
