"""``ChatCompletionsProgram``: an agent that speaks chat completions, as a program that yields steps."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import dspy
import json_repair
from dspy.utils.usage_tracker import UsageTracker

from oneturn.core.steps import Answer, Step, ToolCall, ToolResult, Usage
from oneturn.errors import ProgramError
from oneturn.programs.stream_parsers import AnswerPiece, AnswerText


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


Message = dict[str, Any]


class ChatTurn(dspy.Signature):
    """Answer the last message of a chat."""

    messages: list[dict[str, Any]] = dspy.InputField(desc="The whole chat, as chat completions have it.")
    answer: str = dspy.OutputField()


class ChatCompletionsProgram:
    """Runs a function that takes chat messages and gives chat completion chunks, and tells them as steps.

    The chunks are those of the Chat Completions API (OpenAI API reference, "Chat completion chunk"), as dicts, as
    ``openai``'s or as MLflow's; MLflow's ``ChatAgentChunk``s, whose ``tool`` messages are tool results; or whole
    completions. Text that comes after a tool call starts the answer over: it is the last message that answers.

    Args:
        complete: takes ``[{"role": …, "content": …}, …]``, gives the chunks in order. It is called once a run and may
            call LMs and tools as it likes.
    """

    signature: type[dspy.Signature] = ChatTurn
    answer_field = "answer"
    citing_fields: tuple[str, ...] = ()

    def __init__(self, complete: Callable[[list[Message]], Iterable[Any]]):
        self.complete = complete

    def steps(self, messages: list[Message]) -> Iterator[Step]:
        """Run the agent and yield its steps as they happen. Closing the iterator closes the chunks' iterator.

        Raises:
            ProgramError: what came is no chat completion chunk.
            Exception: whatever the agent raises.
        """
        chunks = _chunks(self.complete(messages))
        try:
            yield from _steps(chunks)
        finally:
            if hasattr(chunks, "close"):
                chunks.close()


def _steps(chunks: Iterable[Any]) -> Iterator[Step]:
    calls, usage, answer = PendingCalls(), ChatUsage(), AnswerText()
    message = 1
    text = ""
    after_tools = False
    for chunk in map(plain, chunks):
        usage.add(chunk)
        for delta in _deltas(chunk):
            if delta.get("role") == "tool":
                yield from calls.finished()
                yield ToolResult(str(delta.get("tool_call_id")), str(delta.get("name")), str(delta.get("content")))
                after_tools = True
                continue
            if said := delta.get("content") or delta.get("refusal"):
                yield from calls.finished()
                if after_tools:
                    message, text, after_tools = message + 1, "", False
                text += said
                yield from answer.add(AnswerPiece(message, said))
            for part in delta.get("tool_calls") or ():
                after_tools = True
                yield from calls.add(part)
    yield from calls.finished()
    if after_tools:
        text = ""
    yield from answer.finish(text)
    yield Answer(dspy.Prediction(answer=text))
    yield Usage(usage.lm_calls, usage.tokens())


def _chunks(given: Any) -> Any:
    whole = isinstance(given, Mapping | str) or hasattr(given, "choices") or hasattr(given, "messages")
    if not whole and isinstance(given, Iterable):
        return given
    return iter([given])


def _deltas(chunk: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if chunk.get("delta") is not None:
        yield chunk["delta"]
        return
    choices = chunk.get("choices")
    if not isinstance(choices, Sequence):
        raise ProgramError(f"{chunk!r:.80} is no chat completion chunk: it has neither choices nor a delta.")
    if choices:  # the first is the answer, others are alternatives to it
        yield choices[0].get("delta") or choices[0].get("message") or {}
