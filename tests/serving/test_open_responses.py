"""The acceptance suite of Open Responses (openresponses.org, 2026-04-24), written again as tests of our own.

The suite's HTTP tests that need no store: ``basic-response``, ``streaming-response``, ``system-prompt``,
``tool-calling``, ``tool-calling-streaming``, ``function-call-roundtrip`` (with the items of the first response instead
of its id), ``image-input``, ``file-input``, ``multi-turn``. Each is the suite's request, its assertions and the schemas
of ``openresponses-types``, streamed and not.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import dspy
import openai
import pytest
from mlflow.pyfunc import ResponsesAgent
from mlflow.types.responses import ResponsesAgentRequest, ResponsesAgentResponse, ResponsesAgentStreamEvent
from starlette.testclient import TestClient

import oneturn
from oneturn.serving import application
from oneturn.testing import ScriptedLM, call, finish
from tests.open_responses import check_events, check_response, read_events


def search(query: str) -> str:
    """Find passages."""
    return "Be polite."


def png() -> str:
    """A small red picture."""
    rows = (b"\x00" + b"\xff\x00\x00" * 8) * 8
    header = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    chunks = b"".join(_chunk(name, data) for name, data in ((b"IHDR", header), (b"IDAT", zlib.compress(rows))))
    content = b"\x89PNG\r\n\x1a\n" + chunks + _chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(content).decode()


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def message(role: str, content: Any) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": content}


def part_with(text: str, **part: Any) -> list[dict[str, Any]]:
    return [{"type": "input_text", "text": text}, part]


PDF = "data:application/pdf;base64," + base64.b64encode(b"%PDF-1.1\n%%EOF").decode()
SUITE = {
    "basic-response": [message("user", "Say hello in exactly 3 words.")],
    "streaming-response": [message("user", "Count from 1 to 5.")],
    "system-prompt": [
        message("system", "You are a pirate. Always respond in pirate speak."),
        message("user", "Say hello."),
    ],
    "multi-turn": [
        message("user", "My name is Alice."),
        message("assistant", "Hello Alice! Nice to meet you. How can I help you today?"),
        message("user", "What is my name?"),
    ],
}
MEDIA = {
    "image-input": [message("user", part_with("What do you see in this image?", type="input_image", image_url=png()))],
    "file-input": [
        message("user", part_with("Answer with its title.", type="input_file", filename="a.pdf", file_data=PDF))
    ],
}


class Look(dspy.Signature):
    """Answer a question about a picture or a file."""

    question: str = dspy.InputField()
    picture: dspy.Image | None = dspy.InputField(default=None)
    document: dspy.File | None = dspy.InputField(default=None)
    answer: str = dspy.OutputField()


@pytest.fixture
def searching_agent() -> Iterator[TestClient]:
    """An agent that looks something up before it answers."""
    program = oneturn.ReAct("question -> answer, certain: bool", tools=[search], thoughts=False)
    program.set_lm(ScriptedLM(call("search", query="name"), finish(answer="Hello to you!", certain=False)))
    with TestClient(application(oneturn.ResponsesAdapter(program), name="greeter")) as client:
        yield client


@pytest.fixture
def media_agent() -> Iterator[TestClient]:
    program = oneturn.ReAct(Look, tools=[])
    program.set_lm(ScriptedLM(finish("I look", answer="A red square.")))
    with TestClient(application(oneturn.ResponsesAdapter(program))) as client:
        yield client


GET_WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the current weather for a location",
    "parameters": {
        "type": "object",
        "properties": {
            "location": {"type": "string", "description": "The city and state, e.g. San Francisco, CA"},
        },
        "required": ["location"],
    },
}


@pytest.fixture
def weather_agent() -> Iterator[TestClient]:
    """An agent that looks something up and then asks the client for the weather."""
    replies = (
        call("search", query="San Francisco"),
        call("get_weather", location="San Francisco, CA"),
        finish(answer="64 degrees.", certain=True),
    )
    program = oneturn.ReAct("question -> answer, certain: bool", tools=[search], thoughts=False)
    program.set_lm(ScriptedLM(*replies))
    with TestClient(application(oneturn.ResponsesAdapter(program), name="greeter")) as client:
        yield client


def ask(client: TestClient, items: Any, stream: bool, **fields: Any) -> dict[str, Any]:
    """Send a request of the suite; check the schemas; return the response."""
    return check_sent(send(client, items, stream, **fields), stream)


def send(client: TestClient, items: Any, stream: bool, **fields: Any) -> Any:
    body = {"model": "greeter", "input": items, "stream": stream, **fields}
    return client.post("/v1/responses", json=body)


def check_sent(sent: Any, stream: bool) -> dict[str, Any]:
    assert sent.status_code == 200, sent.text
    if not stream:
        assert sent.headers["content-type"] == "application/json"
        response: dict[str, Any] = sent.json()
        check_response(response)
        return response
    assert sent.headers["content-type"].startswith("text/event-stream")
    events = read_events(sent.text)
    check_events(events)
    streamed: dict[str, Any] = events[-1]["response"]
    return streamed


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("test", SUITE)
def test_the_suite_against_an_agent_with_a_tool(searching_agent: TestClient, test: str, stream: bool):
    response = ask(searching_agent, SUITE[test], stream)
    assert response["status"] == "completed"
    assert [item["type"] for item in response["output"]] == ["mcp_call", "message"]
    assert response["model"] == "greeter"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("test", MEDIA)
def test_the_suite_against_an_agent_with_images_and_files(media_agent: TestClient, test: str, stream: bool):
    response = ask(media_agent, MEDIA[test], stream)
    assert response["status"] == "completed"
    assert response["output"][-1]["content"][0]["text"] == "A red square."


@pytest.mark.parametrize("stream", [False, True])
def test_the_suite_s_tool_calling(weather_agent: TestClient, stream: bool):
    question = [message("user", "What's the weather like in San Francisco?")]
    sent = send(weather_agent, question, stream, tools=[GET_WEATHER])
    response = check_sent(sent, stream)
    assert [item["type"] for item in response["output"]] == ["mcp_call", "function_call"]
    assert response["tools"] == [{**GET_WEATHER, "strict": None}]
    if stream:
        events = read_events(sent.text)
        of_call = [event for event in events if (event.get("item") or {}).get("type") == "function_call"]
        assert [event["type"] for event in of_call] == ["response.output_item.added", "response.output_item.done"]
        arguments = [event for event in events if event["type"].startswith("response.function_call_arguments")]
        assert [event["type"].rsplit(".", 1)[-1] for event in arguments] == ["delta", "done"]
        assert {event["item_id"] for event in arguments} == {of_call[0]["item"]["id"]}


@pytest.mark.parametrize("stream", [False, True])
def test_the_suite_s_function_call_round_trip(weather_agent: TestClient, stream: bool):
    question = "Use the weather tool to get the temperature in San Francisco."
    choice = {"type": "function", "name": "get_weather"}
    first = ask(weather_agent, question, stream, tools=[GET_WEATHER], tool_choice=choice)
    assert (first["status"], first["tool_choice"]) == ("completed", choice)
    (made,) = [item for item in first["output"] if item["type"] == "function_call"]
    tool_output = {"type": "function_call_output", "call_id": made["call_id"], "output": "64 degrees and clear"}
    second = ask(weather_agent, [message("user", question), *first["output"], tool_output], stream)
    assert second["status"] == "completed"
    assert [item["type"] for item in second["output"]] == ["message"]
    assert "tools" in second
    assert second["tools"] == []


ERRORS = {
    "invalid_request": ({"input": "?", "tools": [{"type": "web_search"}]}, 400, "tools.0"),
    "not_found": (None, 404, ""),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_the_specification_s_error_types(media_agent: TestClient, kind: str):
    body, status, param = ERRORS[kind]
    path = "/v1/responses" if body else "/v1/nothing"
    sent = media_agent.post(path, json=body or {})
    assert sent.status_code == status
    error = sent.json()["error"]
    assert (error["type"], error["param"]) == (kind, param)
    assert set(error) == {"type", "code", "message", "param"}


class Documented(ResponsesAgent):
    """An agent as MLflow's documentation writes it: text deltas, then the finished item."""

    def predict(self, request: ResponsesAgentRequest) -> ResponsesAgentResponse:
        done = [event.item for event in self.predict_stream(request) if event.type == "response.output_item.done"]
        return ResponsesAgentResponse(output=done)

    def predict_stream(self, request: ResponsesAgentRequest) -> Iterator[ResponsesAgentStreamEvent]:
        for piece in ("Hel", "lo"):
            yield ResponsesAgentStreamEvent(**self.create_text_delta(delta=piece, item_id="msg_1"))
        item = self.create_text_output_item(text="Hello", id="msg_1")
        yield ResponsesAgentStreamEvent(type="response.output_item.done", item=item)


def test_another_agent_is_read_by_openai_s_helper():
    with oneturn.running_server(Documented()) as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        with client.responses.stream(model="m", input="Hi", metadata={"a": "b"}, temperature=0.5) as stream:
            deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
            response = stream.get_final_response()
        created = client.responses.create(model="m", input="Hi", metadata={"a": "b"}, temperature=0.5)
    assert ("".join(deltas), response.output_text, created.output_text) == ("Hello", "Hello", "Hello")
    for each in (response, created):
        check_response(each.to_dict(mode="json"))
        assert (each.metadata, each.temperature) == ({"a": "b"}, 0.5)
