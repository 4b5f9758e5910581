"""A ``dspy.History`` in the forms that DSPy's programs write, in all three ways of tool calling."""

from __future__ import annotations

import itertools
import json
from typing import Any

import dspy
import pytest
from dspy.utils import DummyLM

from oneturn import ReAct
from tests.programs.react.chat_stub import calls, chat_stub

WAYS = pytest.mark.parametrize("way", ["native", "schema", "text"])
DONE = calls(("finish", {"answer": "5 euros"}))
WRITTEN = json.dumps({"tool_call": {"name": "finish", "args": {"answer": "5 euros"}}})


def search(query: str) -> str:
    """Search."""
    return f"{query}: 4 euros"


def all_messages_with(history: Any, way: str) -> list[dict[str, Any]]:
    """The messages of a request with this history."""
    program = ReAct(dspy.Signature("question, history: dspy.History -> answer"), tools=[search], tool_calling=way)
    with chat_stub(DONE if way == "native" else WRITTEN) as stub:
        program.set_lm(stub.lm())
        program(question="And milk?", history=history)
    return list(stub.requests[0]["messages"])


def messages_with(history: Any, way: str) -> list[dict[str, Any]]:
    """The messages of a request with this history, without the system message."""
    return all_messages_with(history, way)[1:]


def history_of_react_v2() -> dspy.History:
    """The history of a real run of ``dspy.ReActV2``: a call of a tool, then ``submit``."""
    steps = [{"name": "search", "args": {"query": "tea"}}], [{"name": "submit", "args": {"answer": "4 euros"}}]
    replies = [{"next_thought": "I look.", "tool_calls": json.dumps({"tool_calls": step})} for step in steps]
    program = dspy.ReActV2("question -> answer", tools=[search])
    with dspy.context(lm=DummyLM(replies), adapter=dspy.ChatAdapter()):
        prediction = program(question="Tea?")
    assert prediction.answer == "4 euros"
    history: dspy.History = prediction.history
    return history


@WAYS
@pytest.mark.parametrize("saved", [False, True])
def test_the_tool_turns_of_react_v2_are_turns_of_ours(way: str, saved: bool):
    history: Any = history_of_react_v2()
    if saved:
        history = json.loads(json.dumps(history.model_dump(mode="json"), default=str))
    messages = messages_with(history, way)
    text = json.dumps(messages)
    assert "submit" not in text
    assert text.index("Tea?") < text.index("tea: 4 euros") < text.index("finish") < text.index("And milk?")
    if way != "native":
        assert [message["role"] for message in messages] == ["user", "assistant", "user", "assistant", "user"]
        assert json.loads(messages[1]["content"])["tool_call"] == {"name": "search", "args": {"query": "tea"}}
        return
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "assistant", "tool", "user"]
    made = [call["function"]["name"] for message in messages for call in message.get("tool_calls", ())]
    assert made == ["search", "finish"]
    ids = [call["id"] for message in messages for call in message.get("tool_calls", ())]
    assert ids == [message["tool_call_id"] for message in messages if message["role"] == "tool"]


@WAYS
@pytest.mark.parametrize(
    "exchange",
    [
        {"question": "Tea?", "answer": "4 euros"},
        {"question": "Tea?", "reasoning": "hm", "answer": "4 euros", "trajectory": {"thought_0": "x"}},
        {"question": "Tea?", "tool_calls": {"tool_calls": [{"name": "submit", "args": {"answer": "4 euros"}}]}},
    ],
)
def test_answers_of_other_programs_are_finish_calls(exchange: dict[str, Any], way: str):
    for history in (dspy.History(messages=[exchange]), {"messages": [exchange]}, [exchange]):
        text = json.dumps(messages_with(history, way)).replace("\\", "").replace(" ", "")
        assert '"answer":"4euros"' in text
        assert "thought_0" not in text
        assert "submit" not in text


@WAYS
def test_messages_of_a_chat_are_messages(way: str):
    chat = [{"role": "user", "content": "Tea?"}, {"role": "assistant", "content": "4 euros"}]
    messages = messages_with(dspy.History(messages=chat), way)
    assert messages[:2] == chat
    assert all(one["role"] != other["role"] for one, other in itertools.pairwise(messages))


PIXEL = "data:image/png;base64,iVBORw0KGgo="


@WAYS
def test_a_chat_may_have_calls_instructions_names_and_parts(way: str):
    function = {"name": "search", "arguments": '{"query": "tea"}'}
    chat = [
        {"role": "system", "content": "Speak German."},
        {"role": "user", "name": "bob", "content": [{"type": "text", "text": "Tea?"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": "c1", "content": "4 euros"},
        {"role": "assistant", "content": "It is 4.", "refusal": None},
    ]
    system, *messages = all_messages_with(dspy.History(messages=chat), way)
    assert system["content"].endswith("\n\nSpeak German.")
    call, result = messages[1:3]
    assert messages[0] == {"role": "user", "content": "Tea?"}
    if way == "native":
        assert json.loads(call["tool_calls"][0]["function"]["arguments"]) == {"query": "tea"}
        assert result == {"role": "tool", "content": "4 euros", "tool_call_id": call["tool_calls"][0]["id"]}
    else:
        assert json.loads(call["content"])["tool_call"] == {"name": "search", "args": {"query": "tea"}}
        assert result == {"role": "user", "content": "4 euros"}
    assert messages[3:] == [{"role": "assistant", "content": "It is 4."}, messages[-1]]
    assert len(messages) == 5


@pytest.mark.parametrize("image", [{"type": "image_url", "image_url": {"url": PIXEL}}, dspy.Image(PIXEL)])
def test_images_of_a_chat_are_content_parts(image: Any):
    chat = [{"role": "user", "content": ["What is it?", image]}, {"role": "assistant", "content": "Tea."}]
    first = messages_with(dspy.History(messages=chat), "text")[0]
    assert [part["type"] for part in first["content"]] == ["text", "image_url"]
    assert first["content"][1]["image_url"]["url"] == PIXEL


def test_a_field_named_role_is_no_chat():
    exchange = {"question": "Who?", "role": "admin", "content": "x"}
    program = ReAct(dspy.Signature("question, history: dspy.History -> role, content"), tools=[], tool_calling="text")
    with chat_stub(json.dumps({"tool_call": {"name": "finish", "args": {"role": "a", "content": "x"}}})) as stub:
        program.set_lm(stub.lm())
        program(question="And now?", history=dspy.History(messages=[exchange]))
    _, question, outputs, _ = stub.requests[0]["messages"]
    assert question["content"] == "question: Who?"
    assert json.loads(outputs["content"])["tool_call"]["args"] == {"role": "admin", "content": "x"}
