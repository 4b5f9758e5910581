"""What one path of a server sends can be sent back to each of its paths: calls, and answers to approvals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import dspy
import httpx
import pytest
from dspy.lm15 import Message, Request, Response, TextPart, Usage
from mlflow.entities import Document

import oneturn
from oneturn.testing import ScriptedLM, ScriptedRequest, call, finish
from oneturn.tools.approvals import Approvals

PATHS = ("/v1/responses", "/responses", "/invocations")
FORMS = {"/v1/responses": {"mcp_call"}, "/responses": {"function_call", "function_call_output"}}
QUESTION = {"role": "user", "content": "Refund order 7, please."}


def look_up(order: int) -> list[Document]:
    """Look an order up."""
    return [Document(f"Order {order} cost 150 euros.", {"title": "Order", "doc_uri": f"orders/{order}"}, id="o7")]


def check_stock(order: int) -> str:
    """Check the stock."""
    raise oneturn.ToolError("no stock list")


@oneturn.tool(approval=True)
def refund(euros: float) -> str:
    """Give money back."""
    return f"{euros:g} euros are on their way"


def respond(request: ScriptedRequest) -> dict[str, Any]:
    steps = [message["content"] for message in request.messages if message["role"] == "assistant"]
    if "Thanks" in request.messages[-1]["content"]:
        return finish(answer="You are welcome.")
    script = [call("look_up", "look", order=7), call("check_stock", order=7), call("refund", "pay", euros=150.0)]
    return script[len(steps)] if len(steps) < len(script) else finish(answer=request.messages[-1]["content"])


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    program = oneturn.ReAct("question -> answer", tools=[look_up, check_stock, refund])
    program.set_lm(ScriptedLM(*[respond] * 500))
    agent = oneturn.ResponsesAdapter(program, approvals=Approvals("0123456789abcdef" * 2))
    with oneturn.running_server(agent) as served:
        yield served


def ask(url: str, items: list[Any], stream: bool) -> list[dict[str, Any]]:
    """The output items of a response."""
    answer = httpx.post(url, json={"input": items, "stream": stream}, timeout=60)
    assert answer.status_code == 200, answer.text
    if not stream:
        return answer.json()["output"]
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: {")]
    events = map(json.loads, lines)
    return next(event["response"]["output"] for event in events if event["type"] == "response.completed")


class CachingEngine:
    """Finishes at once, with tokens read from a cache, written to it and spent on reasoning."""

    supports_function_calling = supports_response_schema = False

    def complete(self, request: Request) -> Response:
        usage = Usage(100, 5, 105, cache_read_tokens=40, cache_write_tokens=30, reasoning_tokens=2)
        message = Message.assistant(TextPart(json.dumps(finish(answer="A", score=1.5))))
        return Response(id=None, model=request.model, message=message, finish_reason="stop", usage=usage)


def without_identity(value: Any) -> Any:
    """The value without ids and times."""
    if isinstance(value, dict):
        return {name: without_identity(each) for name, each in value.items() if not name.endswith(("id", "_at"))}
    return [without_identity(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("path", PATHS)
def test_a_response_is_the_one_that_its_stream_ends_with(path: str):
    program = oneturn.ReAct("question -> answer, score: float", tools=[look_up])
    program.set_lm(dspy.LM("openai/caching", engine=CachingEngine(), cache=False))
    settings = {"temperature": 0.5, "metadata": {"a": "b"}, "user": "u", "max_output_tokens": 1000}
    body = {"input": [QUESTION], "parallel_tool_calls": False, **settings}
    with oneturn.running_server(oneturn.ResponsesAdapter(program)) as server:
        response = httpx.post(server + path, json=body, timeout=60).json()
        stream = httpx.post(server + path, json={**body, "stream": True}, timeout=60).text
    lines = [line.removeprefix("data: ") for line in stream.splitlines() if line.startswith("data: {")]
    assert without_identity(response) == without_identity(json.loads(lines[-1])["response"])
    assert response["usage"]["input_tokens_details"] == {"cached_tokens": 40, "cache_write_tokens": 30}


def as_javascript_sends(items: list[Any]) -> list[Any]:
    """Whole numbers lose their fraction, and fields that a client doesn't know are gone."""
    known = ("type", "id", "call_id", "role", "name", "arguments", "output", "error", "server_label", "content")
    kept = [{name: item[name] for name in known if name in item} for item in items if item["type"] != "reasoning"]
    return [
        {**item, "arguments": json.dumps(json.loads(item["arguments"])).replace("150.0", "150")}
        if "arguments" in item
        else item
        for item in kept
    ]


def unchanged(items: list[Any]) -> list[Any]:
    return items


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("round_trip", [unchanged, as_javascript_sends])
@pytest.mark.parametrize("first_path", PATHS)
@pytest.mark.parametrize("second_path", PATHS)
def test_an_approval_is_answered_at_any_path(
    url: str, first_path: str, second_path: str, round_trip: Any, stream: bool
):
    first = ask(url + first_path, [QUESTION], stream)
    calls = {item["type"] for item in first} - {"reasoning", "mcp_approval_request"}
    assert calls == FORMS.get(first_path, FORMS["/responses"])
    approval = {"type": "mcp_approval_response", "approval_request_id": first[-1]["id"], "approve": True}
    items = [QUESTION, *round_trip(first), approval]
    second = ask(url + second_path, items, stream)
    assert second[-1]["content"][0]["text"] == "150 euros are on their way"
    assert len([item for item in second if item["type"] in ("mcp_call", "function_call")]) == 1, "no call is repeated"
    thanks = {"role": "user", "content": "Thanks"}
    third = ask(url + first_path, [*items, *round_trip(second), thanks], stream)
    assert third[-1]["content"][0]["text"] == "You are welcome."


@pytest.mark.parametrize("path", PATHS)
def test_our_client_reads_and_answers_each_path(url: str, path: str):
    address = url + path.removesuffix("/responses").removesuffix("/invocations")
    reply = oneturn.query(address, "Refund order 7, please.")
    assert [(each.name, each.output) for each in reply.tool_calls] == [
        ("look_up", "[o7] Order 7 cost 150 euros."),
        ("check_stock", "Error: no stock list"),
    ]
    assert [each.name for each in reply.approvals] == ["refund"]
    assert oneturn.query(address, reply.answering(True)).text == "150 euros are on their way"
    assert oneturn.query(address, oneturn.query(address, "Again").answering(False)).text.startswith("Error: a person")
