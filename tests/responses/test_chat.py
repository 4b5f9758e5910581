"""The chat that a field of ``messages`` receives: valid for an API of chat completions, whatever the items are."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import dspy
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.types.responses import ResponsesAgentRequest
from openai.types.chat import ChatCompletionMessageParam

import oneturn
from oneturn.core.steps import Answer, Step
from oneturn.errors import RequestError
from oneturn.programs import ChatCompletionsProgram
from oneturn.responses.chat import to_chat
from oneturn.testing import ScriptedLM, call, finish
from tests.responses.mcp_dialect import as_mcp

PIXEL = "data:image/png;base64,iVBORw0KGgo="
PDF = "data:application/pdf;base64,JVBERi0="
_VALID: Any = pydantic.TypeAdapter(list[ChatCompletionMessageParam])


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content[0] if isinstance(content[0], str) else list(content)}


def text(value: str) -> dict[str, Any]:
    return {"type": "input_text", "text": value}


def assistant(*parts: Any) -> dict[str, Any]:
    given = [
        {"type": "output_text", "text": each, "annotations": []} if isinstance(each, str) else each for each in parts
    ]
    return {"type": "message", "id": "msg_1", "role": "assistant", "content": given}


def made(id: str) -> dict[str, Any]:
    return {"type": "function_call", "id": f"fc_{id}", "call_id": id, "name": "find", "arguments": "{}"}


def result(id: str, output: Any = "found") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": id, "output": output}


REASONING = {"type": "reasoning", "id": "rs_1", "summary": []}


def chat(*items: dict[str, Any], media: bool = False) -> list[dict[str, Any]]:
    """The chat of items, checked as an API would."""
    request = ResponsesAgentRequest(input=list(items))
    return checked(to_chat([item.model_dump() for item in request.input], media))


def checked(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for message in _VALID.validate_python(messages):
        for name in ("content", "tool_calls"):  # pydantic validates iterables when they are read
            if not isinstance(message.get(name, ""), str):
                list(message[name])
    position = 0
    while position < len(messages):
        calls = [each["id"] for each in messages[position].get("tool_calls", ())]
        results = list(itertools.islice(messages, position + 1, position + 1 + len(calls)))
        assert [each.get("tool_call_id") for each in results] == calls, "results follow their calls"
        position += 1 + len(calls)
        assert position == len(messages) or messages[position]["role"] != "tool", "no result without a call"
    return messages


def calling(*ids: str, content: str = "tool call") -> dict[str, Any]:
    calls = [{"id": id, "type": "function", "function": {"name": "find", "arguments": "{}"}} for id in ids]
    return {"role": "assistant", "content": content, "tool_calls": calls}


def tool(id: str, content: str = "found") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": content}


Q, A = user("Q"), {"role": "assistant", "content": "A"}
CHATS: dict[str, tuple[list[Any], list[Any]]] = {
    "parallel calls": (
        [Q, made("a"), REASONING, made("b"), result("b"), result("a", "also")],
        [Q, calling("a", "b"), tool("a", "also"), tool("b")],
    ),
    "calls one after the other": (
        [Q, made("a"), result("a"), made("b"), result("b")],
        [Q, calling("a"), tool("a"), calling("b"), tool("b")],
    ),
    "a text with calls": (
        [Q, assistant("I look."), made("a"), result("a")],
        [Q, calling("a", content="I look."), tool("a")],
    ),
    "a message before the result": ([made("a"), Q, result("a")], [calling("a"), tool("a"), Q]),
    "a call without a result": ([Q, made("a"), made("b"), result("b"), Q], [Q, calling("b"), tool("b"), Q]),
    "a result without a call": ([Q, result("a"), A], [Q, A]),
    "an id used twice": (
        [made("a"), result("a"), made("a"), result("a", "2")],
        [calling("a"), tool("a"), calling("a"), tool("a", "2")],
    ),
    "reasoning": ([Q, REASONING, A, Q], [Q, A, Q]),
    "two parts": (
        [user(text("a"), text("b")), assistant("c", "d")],
        [user("a\nb"), {"role": "assistant", "content": "c\nd"}],
    ),
    "a refusal": (
        [Q, assistant({"type": "refusal", "refusal": "No."}), Q],
        [Q, {"role": "assistant", "content": "No."}, Q],
    ),
    "an empty answer": ([Q, {"role": "assistant", "content": ""}, Q], [Q, Q]),
    "parts of a result": (
        [made("a"), result("a", [text("x"), {"type": "input_image", "image_url": PIXEL}])],
        [calling("a"), tool("a", "x\n[image]")],
    ),
    "another provider's call": ([Q, {"type": "web_search_call", "id": "ws_1"}, A], [Q, A]),
    "an approval": (
        [
            {
                "type": "mcp_approval_request",
                "id": "mcpr_1",
                "name": "find",
                "arguments": "{}",
                "server_label": "oneturn",
            },
            {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True},
            *(made("a"), result("a"), A),
        ],
        [calling("a"), tool("a"), A],
    ),
}


@pytest.mark.parametrize("case", CHATS)
def test_items_are_a_valid_chat(case: str):
    items, expected = CHATS[case]
    assert chat(*items) == expected


_items = st.sampled_from(
    [
        *(each for id in "ab" for each in (made(id), result(id))),
        Q,
        assistant("A"),
        A,
        REASONING,
        user(text("a"), text("b")),
    ]
)


@given(st.lists(_items, max_size=10))
def test_any_items_are_a_valid_chat(items: list[dict[str, Any]]):
    chat(*items)


def test_images_and_files_are_parts_of_a_user_message():
    paper = {"type": "input_file", "file_data": PDF, "filename": "a.pdf"}
    given = [user(text("See."), {"type": "input_image", "image_url": PIXEL}, paper)]
    [message] = chat(*given, media=True)
    assert message["content"] == [
        {"type": "text", "text": "See."},
        {"type": "image_url", "image_url": {"url": PIXEL}},
        {"type": "file", "file": {"file_data": PDF, "filename": "a.pdf"}},
    ]
    with pytest.raises(RequestError, match="'input_image' isn't supported"):
        chat(*given)
    assert oneturn.ResponsesAdapter(ChatCompletionsProgram(lambda messages: [])).parse({"input": given})


class Talk(dspy.Signature):
    """Help."""

    messages: list[dict[str, Any]] = dspy.InputField()
    answer: str = dspy.OutputField()


class Recording:
    """A program that records its chat."""

    signature = Talk
    answer_field = "answer"
    citing_fields: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.chats: list[Any] = []

    def steps(self, messages: list[dict[str, Any]]) -> Iterator[Step]:
        self.chats.append(messages)
        yield Answer(dspy.Prediction(answer="So."))


@pytest.mark.parametrize("form", ["function_call", "mcp_call"])
def test_an_agent_s_own_output_sent_back_is_a_valid_chat(form: str):
    def find(word: str) -> str:
        """Find it."""
        return f"{word} is here"

    program = oneturn.ReAct(Talk, tools=[find], parallel_calls=True)
    first, second = (call("find", "look", word=word)["tool_call"] for word in "xy")
    both = {"thought": "both", "tool_call": first, "parallel_calls": [second]}
    program.set_lm(ScriptedLM(both, finish("so", answer="Here.")))
    agent = oneturn.ResponsesAdapter(program)
    output = json.loads(json.dumps(agent.run(agent.parse({"input": [Q]})).model_dump(exclude_none=True)["output"]))
    recording = Recording()
    items = [Q, *(output if form == "function_call" else as_mcp(output)), Q]
    again = oneturn.ResponsesAdapter(recording)
    again.run(again.parse({"input": items}))
    [messages] = recording.chats
    assert checked(messages)[-2:] == [{"role": "assistant", "content": "Here."}, Q]
    assert [message["content"] for message in messages if message["role"] == "tool"] == ["x is here", "y is here"]
