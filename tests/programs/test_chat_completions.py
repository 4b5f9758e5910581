"""An agent that speaks chat completions is a program like any other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from mlflow.types.agent import ChatAgentChunk, ChatAgentMessage
from mlflow.types.llm import ChatChoiceDelta, ChatChunkChoice
from mlflow.types.llm import ChatCompletionChunk as MlflowChunk
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from oneturn import ResponsesAdapter
from oneturn.core.steps import Answer, AnswerDelta, ToolCall, ToolResult
from oneturn.core.usage import Usage
from oneturn.errors import ProgramError
from oneturn.programs import ChatCompletionsProgram, as_program


def chunk(id: str = "c1", usage: dict[str, int] | None = None, **delta: Any) -> dict[str, Any]:
    choices = [{"index": 0, "delta": delta, "finish_reason": None}] if delta else []
    made = {"id": id, "object": "chat.completion.chunk", "created": 0, "model": "some/lm", "choices": choices}
    return {**made, "usage": usage} if usage else made


def tool_call(index: int, arguments: str, id: str | None = None, name: str | None = None) -> dict[str, Any]:
    return {"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


USAGE = {
    "prompt_tokens": 5,
    "completion_tokens": 2,
    "total_tokens": 7,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 1},
}
HELLO = [chunk(role="assistant", content=""), chunk(content="Hel"), chunk(content="lo"), chunk(usage=USAGE)]


def steps_of(*chunks: Any) -> list[Any]:
    return list(ChatCompletionsProgram(lambda messages: iter(chunks)).steps(messages=HI))


HI = [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize("kind", [dict, ChatCompletionChunk.model_validate])
def test_chunks_are_the_answer_as_it_is_written(kind: Any):
    steps = steps_of(*map(kind, HELLO))
    assert steps[:2] == [AnswerDelta("Hel"), AnswerDelta("lo")]
    assert steps[2].prediction.answer == "Hello"
    assert steps[3] == Usage(1, 5, 2, cached_tokens=4, reasoning_tokens=1)


def test_tool_calls_are_put_together_by_their_index():
    steps = steps_of(
        chunk(content="Let me see."),
        chunk(tool_calls=[tool_call(0, "", "a", "look_up")]),
        chunk(tool_calls=[tool_call(0, '{"item": ')]),
        chunk(tool_calls=[tool_call(1, '{"item": "milk"}', "b", "look_up")]),
        chunk(tool_calls=[tool_call(0, '"tea"}')]),
        chunk("c2", tool_calls=[tool_call(0, "{}", "c", "add")], usage=USAGE),
        chunk("c3", content="4 "),
        chunk("c3", content="euros", usage=USAGE),
    )
    assert [step for step in steps if isinstance(step, ToolCall)] == [
        ToolCall("a", "look_up", {"item": "tea"}),
        ToolCall("b", "look_up", {"item": "milk"}),
        ToolCall("c", "add", {}),
    ]
    assert [step for step in steps if isinstance(step, AnswerDelta)] == [
        AnswerDelta("Let me see.", 0),
        AnswerDelta("4 ", 1),
        AnswerDelta("euros", 1),
    ]
    (answer,) = (step for step in steps if isinstance(step, Answer))
    assert answer.prediction.answer == "4 euros"
    assert steps[-1] == Usage(3, 10, 4, cached_tokens=8, reasoning_tokens=2)


def test_a_run_that_ends_with_tool_calls_has_no_text():
    steps = steps_of(chunk(content="Wait."), chunk(tool_calls=[tool_call(0, "{}", "a", "look_up")]))
    assert [type(step) for step in steps] == [AnswerDelta, ToolCall, AnswerDelta, Answer, Usage]
    assert steps[2] == AnswerDelta("", 1)
    assert steps[3].prediction.answer == ""


@pytest.mark.parametrize(("written", "args"), [("", {}), ("{'a': 1}", {"a": 1}), ("three", {"arguments": "three"})])
def test_arguments_that_are_no_json_are_not_lost(written: str, args: Any):
    (asked,) = (
        step for step in steps_of(chunk(tool_calls=[tool_call(0, written, "a", "f")])) if isinstance(step, ToolCall)
    )
    assert asked.args == args


def test_a_chat_agent_of_mlflow_tells_its_tools_results():
    made = [{"id": "a", "type": "function", "function": {"name": "look_up", "arguments": '{"item": "tea"}'}}]
    messages = [
        ChatAgentMessage(role="assistant", content="", id="m1", tool_calls=made),
        ChatAgentMessage(role="tool", content="4 euros", id="m2", name="look_up", tool_call_id="a"),
        ChatAgentMessage(role="assistant", content="4 euros.", id="m3"),
    ]
    steps = steps_of(*(ChatAgentChunk(delta=message) for message in messages))
    assert steps[:3] == [
        ToolCall("a", "look_up", {"item": "tea"}),
        ToolResult("a", "look_up", "4 euros"),
        AnswerDelta("4 euros."),
    ]


def test_mlflow_s_chunks_and_whole_completions_will_do():
    piece = MlflowChunk(choices=[ChatChunkChoice(delta=ChatChoiceDelta(content="Hello"))])
    whole = ChatCompletion.model_validate(
        {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": "some/lm",
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello"}}],
            "usage": USAGE,
        }
    )
    given: Any
    for given in (lambda messages: [piece], lambda messages: whole, lambda messages: whole.model_dump()):
        steps = list(ChatCompletionsProgram(given).steps(messages=HI))
        assert steps[0] == AnswerDelta("Hello")


@pytest.mark.parametrize("given", [[3], [{"text": "Hello"}], "Hello", 3])
def test_what_is_no_chunk_is_refused(given: Any):
    with pytest.raises(ProgramError, match="is not a chat completion chunk"):
        list(ChatCompletionsProgram(lambda messages: given).steps(messages=HI))


def test_the_agent_reads_the_whole_chat():
    read: list[Any] = []
    agent = ResponsesAdapter(ChatCompletionsProgram(lambda messages: read.extend(messages) or HELLO))
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello?"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "Tea?"},
    ]
    list(agent.predict_stream({"input": chat}))
    assert read == chat


def test_leaving_closes_the_agent_s_stream():
    closed = []

    def complete(messages: list[dict[str, Any]]) -> Iterator[Any]:
        try:
            yield from HELLO
            raise AssertionError("nobody reads this")
        finally:
            closed.append(True)

    steps = as_program(ChatCompletionsProgram(complete)).steps(messages=HI)
    assert next(steps) == AnswerDelta("Hel")
    steps.close()
    assert closed == [True]


def test_an_error_of_the_agent_comes_out_unchanged():
    error = KeyError("mine")

    def complete(messages: list[dict[str, Any]]) -> Iterator[Any]:
        yield HELLO[1]
        raise error

    with pytest.raises(KeyError) as raised:
        list(ChatCompletionsProgram(complete).steps(messages=HI))
    assert raised.value is error


def test_it_is_served_like_any_program():
    agent = ResponsesAdapter(ChatCompletionsProgram(lambda messages: HELLO))
    events = [event.model_dump() for event in agent.predict_stream({"input": [{"role": "user", "content": "Hi"}]})]
    assert [event["delta"] for event in events if event["type"] == "response.output_text.delta"] == ["Hel", "lo"]
    assert events[-1]["type"] == "response.completed"
    assert events[-1]["response"]["usage"]["total_tokens"] == 7
    json.dumps(events)
