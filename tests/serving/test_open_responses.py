"""The acceptance suite of Open Responses (openresponses.org, 2026-04-24), written again as tests of our own.

The suite's HTTP tests that need neither tools of the client nor a store: ``basic-response``, ``streaming-response``,
``system-prompt``, ``image-input``, ``file-input``, ``multi-turn``. Each is the suite's request, its assertions and the
schemas of ``openresponses-types``, streamed and not.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import dspy
import pytest
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


def ask(client: TestClient, items: list[dict[str, Any]], stream: bool) -> dict[str, Any]:
    """Send a request of the suite; check the schemas; return the response."""
    sent = client.post("/v1/responses", json={"model": "greeter", "input": items, "stream": stream})
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


ERRORS = {
    "invalid_request": ({"input": "?", "tools": [{"type": "function", "name": "f"}]}, 400, "tools"),
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
