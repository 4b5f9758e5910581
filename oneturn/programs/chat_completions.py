"""``ChatCompletionsProgram``: converts an agent's chat completion chunks to steps."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import dspy
import json_repair

from oneturn.core.steps import Answer, Step, ToolCall, ToolResult
from oneturn.core.usage import NO_USAGE, Usage
from oneturn.errors import ProgramError
from oneturn.programs.stream_parsers import AnswerPiece, AnswerText


def to_mapping(chunk: Any) -> Mapping[str, Any]:
    """Convert a chunk to a mapping: ``openai``'s and MLflow's objects by their own dump method.

    Raises:
        ProgramError: the chunk is of another type.
    """
    if isinstance(chunk, Mapping):
        return chunk
    for dump in ("model_dump", "to_dict"):
        if hasattr(chunk, dump):
            dumped: Mapping[str, Any] = getattr(chunk, dump)()
            return dumped
    raise ProgramError(f"{chunk!r:.80} is not a chat completion chunk; yield dicts, or openai's or MLflow's chunks.")


class PendingCalls:
    """Assembles tool calls whose arguments are streamed in parts, by index."""

    def __init__(self) -> None:
        self._pending: dict[int, dict[str, str]] = {}

    def add(self, part: Mapping[str, Any]) -> Iterator[ToolCall]:
        """Add a part of a call; yield the calls that are complete."""
        index = part.get("index") or 0
        call_id = part.get("id")
        if call_id and self._pending.get(index, {}).get("id", call_id) != call_id:
            yield from self.flush()
        call = self._pending.setdefault(
            index, {"id": call_id or f"call_{uuid.uuid4().hex[:24]}", "name": "", "arguments": ""}
        )
        function = part.get("function") or {}
        call["name"] += function.get("name") or ""
        call["arguments"] += function.get("arguments") or ""

    def flush(self) -> Iterator[ToolCall]:
        """Yield all pending calls: they are complete."""
        pending, self._pending = self._pending, {}
        for _, call in sorted(pending.items()):
            yield ToolCall(call["id"], call["name"], _parse_arguments(call["arguments"]))


def _parse_arguments(text: str) -> dict[str, Any]:
    arguments = json_repair.loads(text) if text.strip() else {}
    return arguments if isinstance(arguments, dict) else {"arguments": text}


Message = dict[str, Any]


class ChatTurn(dspy.Signature):
    """Answer the last message of a chat."""

    messages: list[dict[str, Any]] = dspy.InputField(desc="The whole chat, as chat completions have it.")
    answer: str = dspy.OutputField()


class ChatCompletionsProgram:
    """Runs a function that takes chat messages and returns chat completion chunks, and converts them to steps.

    Supported chunks are those of the Chat Completions API (OpenAI API reference, "Chat completion chunk"), as dicts or
    as ``openai``'s or MLflow's objects; MLflow's ``ChatAgentChunk``s, whose ``tool`` messages are tool results; and
    complete completions. Text after a tool call starts the answer over: the last message is the answer.

    Args:
        complete: takes ``[{"role": …, "content": …}, …]`` and returns the chunks in order. It is called once per run
            and may call any LMs and tools.
    """

    signature: type[dspy.Signature] = ChatTurn
    answer_field = "answer"
    citing_fields: tuple[str, ...] = ()

    def __init__(self, complete: Callable[[list[Message]], Iterable[Any]]):
        self.complete = complete

    def steps(self, messages: list[Message]) -> Iterator[Step]:
        """Run the agent and yield its steps as they happen. Closing the iterator closes the chunks' iterator.

        Raises:
            ProgramError: a chunk is not a chat completion chunk.
            Exception: any exception of the agent.
        """
        chunks = _chunks(self.complete(messages))
        try:
            yield from _steps(chunks)
        finally:
            if hasattr(chunks, "close"):
                chunks.close()


def _steps(chunks: Iterable[Any]) -> Iterator[Step]:
    calls, answer = PendingCalls(), AnswerText()
    usages: dict[str, Usage] = {}
    message = 1
    text = ""
    after_tools = False
    for chunk in map(to_mapping, chunks):
        completion = str(chunk.get("id") or "")
        if usage := chunk.get("usage"):  # of a completion's usages, the last one counts
            usages[completion] = Usage.from_dspy(usage)
        usages.setdefault(completion, Usage(lm_calls=1))
        for delta in _deltas(chunk):
            if delta.get("role") == "tool":
                yield from calls.flush()
                yield ToolResult(str(delta.get("tool_call_id")), str(delta.get("name")), _text(delta.get("content")))
                after_tools = True
                continue
            if content := _text(delta.get("content")) or delta.get("refusal"):
                yield from calls.flush()
                if after_tools:
                    message, text, after_tools = message + 1, "", False
                text += content
                yield from answer.add(AnswerPiece(message, content))
            for part in delta.get("tool_calls") or ():
                after_tools = True
                yield from calls.add(part)
    yield from calls.flush()
    if after_tools:
        text = ""
    yield from answer.finish(text)
    yield Answer(dspy.Prediction(answer=text))
    yield sum(usages.values(), NO_USAGE)


def _text(content: Any) -> str:
    """Return the text of a message's content: a text, or parts of which those with reasoning aren't the answer.

    Databricks' endpoints send the reasoning of Claude as such parts.
    """
    if content is None or isinstance(content, str):
        return content or ""
    parts = [part for part in content if isinstance(part, Mapping)] if isinstance(content, Sequence) else []
    return "".join(str(part.get("text") or "") for part in parts if part.get("type") in ("text", "output_text"))


def _chunks(result: Any) -> Any:
    is_single = isinstance(result, Mapping | str) or hasattr(result, "choices") or hasattr(result, "messages")
    if not is_single and isinstance(result, Iterable):
        return result
    return iter([result])


def _deltas(chunk: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if chunk.get("delta") is not None:
        yield chunk["delta"]
        return
    choices = chunk.get("choices")
    if not isinstance(choices, Sequence):
        raise ProgramError(f"{chunk!r:.80} is not a chat completion chunk: it has neither choices nor a delta.")
    if choices:  # the first is the answer, the others are alternatives
        yield choices[0].get("delta") or choices[0].get("message") or {}
