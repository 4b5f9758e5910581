"""Function calling over HTTP: what is sent, what is read, streaming and not."""

from __future__ import annotations

import json
from typing import Any

import dspy
import pytest

from oneturn import ReAct
from oneturn.core.steps import Answer, AnswerDelta, Thought
from oneturn.errors import RunError
from oneturn.programs.react.native import NativeAdapter
from oneturn.programs.react.trajectory import ToolCallArgs, Turn
from tests.programs.react.chat_stub import ChatStub, calls, chat_stub

STREAMING = pytest.mark.parametrize("streaming", [False, True])


def price(item: str, currency: str = "euros") -> str:
    """Look up a price.

    The list is from today.
    """
    return f"{item} costs 4 {currency}"


def agent(signature: str = "question -> answer, sure: bool", **options: Any) -> ReAct:
    return ReAct(signature, tools=[price], **options)


def run(stub: ChatStub, program: ReAct, streaming: bool, model: str = "openai/gpt-4o-mini") -> tuple[Any, list[Any]]:
    """Return the prediction and the steps; without streaming, there are no steps."""
    program.set_lm(stub.lm(model))
    if not streaming:
        return program(question="What does tea cost?"), []
    steps = list(program.steps(question="What does tea cost?"))
    return next(step.prediction for step in steps if isinstance(step, Answer)), steps


LOOK = calls(("price", {"item": "tea"}))
DONE = calls(("finish", {"answer": "Tea costs 4 euros.", "sure": True}))


@STREAMING
def test_tools_and_finish_are_functions_and_results_are_tool_messages(streaming: bool):
    with chat_stub(LOOK, DONE) as stub:
        prediction, steps = run(stub, agent(), streaming)
    assert (prediction.answer, prediction.sure) == ("Tea costs 4 euros.", True)
    first, second = stub.requests
    assert [tool["function"]["name"] for tool in first["tools"]] == ["price", "finish"]
    assert first["tool_choice"] == "required"
    assert "response_format" not in first
    parameters = first["tools"][0]["function"]["parameters"]
    assert (parameters["required"], parameters["additionalProperties"]) == (["item"], False)
    assert first["tools"][0]["function"]["description"] == "Look up a price. The list is from today."
    assert "price" not in first["messages"][0]["content"], "the functions describe the tools"
    calling, result = second["messages"][2:]
    assert json.loads(calling["tool_calls"][0]["function"]["arguments"]) == {"item": "tea"}
    assert (result["role"], result["content"]) == ("tool", "tea costs 4 euros")
    assert result["tool_call_id"] == calling["tool_calls"][0]["id"]
    if streaming:
        deltas = [step.text for step in steps if isinstance(step, AnswerDelta)]
        assert "".join(deltas) == "Tea costs 4 euros."
        assert len(deltas) > 2, "the answer streams out of the arguments of finish"


def test_the_prompt_names_several_outputs():
    answer = calls(("finish", {"answer": "4 euros."}))
    for signature, reply, end in (
        ("question -> answer, sure: bool", DONE, "call finish with sure, answer."),
        ("question -> answer", answer, "call finish."),
    ):
        with chat_stub(reply) as stub:
            run(stub, agent(signature), streaming=False)
        assert end in stub.requests[0]["messages"][0]["content"]


@STREAMING
def test_a_request_begins_with_the_bytes_of_the_one_before(streaming: bool):
    with chat_stub(LOOK, calls(("price", {"item": "milk"})), DONE) as stub:
        run(stub, agent(), streaming)
    for before, after in zip(stub.requests, stub.requests[1:], strict=False):
        assert json.dumps(after["messages"]).startswith(json.dumps(before["messages"])[:-1])
        assert json.dumps(after["tools"]) == json.dumps(before["tools"])


@STREAMING
def test_parallel_calls_are_calls_of_one_step(streaming: bool):
    both = calls(("price", {"item": "tea"}), ("price", {"item": "milk"}))
    with chat_stub(both, DONE) as stub:
        run(stub, agent(), streaming)
    calling, *results = stub.requests[1]["messages"][2:]
    assert [result["content"] for result in results] == ["tea costs 4 euros", "milk costs 4 euros"]
    assert [call["id"] for call in calling["tool_calls"]] == [result["tool_call_id"] for result in results]


@STREAMING
def test_the_last_step_can_only_be_finish_by_the_choice_alone(streaming: bool):
    with chat_stub(LOOK, DONE) as stub:
        run(stub, agent(max_iters=2), streaming)
    first, last = stub.requests
    assert last["tool_choice"] == {"type": "function", "function": {"name": "finish"}}
    assert last["tools"] == first["tools"]


@STREAMING
def test_text_is_the_answer_where_nothing_else_is_required(streaming: bool):
    with chat_stub(LOOK, "It is 4 euros.") as stub:
        prediction, steps = run(stub, agent("question -> answer"), streaming)
    assert prediction.answer == "It is 4 euros."
    if streaming:
        assert "".join(step.text for step in steps if isinstance(step, AnswerDelta)) == "It is 4 euros."


@STREAMING
def test_else_text_is_asked_for_finish_once(streaming: bool):
    with chat_stub("It is 4 euros.", DONE) as stub:
        assert run(stub, agent(), streaming)[0].sure is True
    reply, asked = stub.requests[1]["messages"][2:]
    assert (reply["role"], reply["content"]) == ("assistant", "It is 4 euros.")
    assert (asked["role"], "Call finish" in asked["content"]) == ("user", True)
    with chat_stub("It is 4 euros.", "I said so.") as stub, pytest.raises(RunError) as failure:
        run(stub, agent(), streaming)
    assert failure.value.code == "invalid_output"


@STREAMING
def test_reasoning_is_a_thought_and_never_the_answer(streaming: bool):
    look = calls(("price", {"item": "tea"}), text="I'll look.", reasoning="A price is asked for.")
    with chat_stub(look, {**DONE, "reasoning_content": "There it is."}) as stub:
        prediction, steps = run(stub, agent(), streaming)
    assert prediction.answer == "Tea costs 4 euros."
    assert stub.requests[1]["messages"][2]["content"] == "I'll look."
    assert "A price is asked for." not in json.dumps(stub.requests[1])
    if streaming:
        thoughts = [step.text for step in steps if isinstance(step, Thought)]
        assert thoughts == ["A price is asked for.", "I'll look.", "There it is."]
        last = max(number for number, step in enumerate(steps) if isinstance(step, Thought))
        assert last < next(number for number, step in enumerate(steps) if isinstance(step, AnswerDelta))


def test_reasoning_goes_back_to_an_api_that_requires_it():
    look = calls(("price", {"item": "tea"}), reasoning="A price is asked for.")
    with chat_stub(look, DONE) as stub:
        run(stub, agent(tool_calling="native"), False, model="deepseek/deepseek-reasoner")
    assert stub.requests[1]["messages"][2]["reasoning_content"] == "A price is asked for."


@STREAMING
def test_a_call_written_as_text_is_read(streaming: bool):
    with chat_stub(json.dumps({"tool_call": {"name": "price", "args": {"item": "tea"}}}), "4 euros") as stub:
        assert run(stub, agent("question -> answer"), streaming)[0].answer == "4 euros"
    assert stub.requests[1]["messages"][-1]["content"] == "tea costs 4 euros"


@STREAMING
def test_outputs_that_dont_fit_are_repaired(streaming: bool):
    with chat_stub(calls(("finish", {"answer": "4", "sure": "perhaps"})), DONE) as stub:
        assert run(stub, agent(), streaming)[0].sure is True
    assert stub.requests[1]["messages"][-1]["role"] == "tool"
    assert "sure" in stub.requests[1]["messages"][-1]["content"]


def test_demos_and_history_are_turns_of_calls_and_results():
    program = ReAct(dspy.Signature("question, history: dspy.History -> answer, sure: bool"), tools=[price])
    turn = {"thought": "", "tool_call": {"name": "price", "args": {"item": "gin"}}, "observation": "gin costs 9 euros"}
    ended = {"name": "finish", "args": {"answer": "9", "sure": True}}
    program.step.demos = [
        {"question": "Gin?", "trajectory": [turn], "tool_call": ended},
        dspy.Example(question="Rum?", answer="8", sure=True).with_inputs("question"),
    ]
    earlier = dspy.History(messages=[{"question": "Ale?", "answer": "3", "sure": False}])
    with chat_stub(DONE) as stub:
        program.set_lm(stub.lm())
        program(question="Tea?", history=earlier)
    messages = stub.requests[0]["messages"]
    roles = [message["role"] for message in messages]
    demo = ["user", "assistant", "tool", "assistant", "tool"]
    assert roles == ["system", *demo, "user", "assistant", "tool", "user", "assistant", "tool", "user"]
    made = [call["id"] for message in messages for call in message.get("tool_calls", ())]
    assert made == [message["tool_call_id"] for message in messages if message["role"] == "tool"]
    assert len(set(made)) == len(made)


def test_a_null_for_an_argument_left_out_takes_its_default():
    with chat_stub(calls(("price", {"item": "tea", "currency": None})), DONE) as stub:
        run(stub, agent(), False)
    assert stub.requests[1]["messages"][-1]["content"] == "tea costs 4 euros"


def test_the_way_is_in_the_trace_and_can_be_asked_for():
    program = agent()
    with chat_stub() as stub:
        assert program.tool_calling_with(stub.lm()) == "native"
        assert program.tool_calling_with(stub.lm("openai/of-my-own")) == "text"
        assert agent(tool_calling="schema").tool_calling_with(stub.lm()) == "schema"


def test_an_image_follows_the_results_of_its_step():

    image = dspy.Image("data:image/png;base64,iVBORw0KGgo=")
    turn = Turn(tool_call=ToolCallArgs(name="shot", args={}), observation="[image]").with_media([image])
    adapter = NativeAdapter(ReAct("question -> answer", tools=[]).steps_schema, ["finish"])
    messages = adapter.turn_messages([turn])
    assert [message["role"] for message in messages] == ["assistant", "tool", "user"]
    assert messages[-1]["content"][-1]["type"] == "image_url"


@STREAMING
@pytest.mark.parametrize(
    ("model", "written"),
    [
        ("openai/gemini-3-pro", {"first": '{"a": 1}', "second": "2", "others": ["3", "x", '"4"'], "text": "5"}),
        ("openai/gpt-4o-mini", {"first": {"a": 1}, "second": 2, "others": [3, "x", "4"], "text": "5"}),
    ],
)
def test_a_value_of_any_type_is_json_text_where_each_argument_needs_a_type(
    model: str, written: dict[str, Any], streaming: bool
):
    made: list[Any] = []

    def keep(first, second, others: list, text: str) -> str:  # type: ignore[no-untyped-def, type-arg]
        """Keep values."""
        made.append((first, second, others, text))
        return "kept"

    with chat_stub(calls(("keep", written)), DONE) as stub:
        program = ReAct("question -> answer, sure: bool", tools=[keep])
        prediction, _ = run(stub, program, streaming, model)
    assert prediction.sure
    assert made == [({"a": 1}, 2, [3, "x", "4"], "5")]
    parameters = stub.requests[0]["tools"][0]["function"]["parameters"]
    assert parameters["required"] == ["first", "second", "others", "text"]
