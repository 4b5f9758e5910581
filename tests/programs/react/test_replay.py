"""What goes back to an LM's API of its own replies: signed thinking and signatures, and no other reasoning."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import dspy
import pytest
from dspy.lm15 import ContinuationState, Message, Request, Response, TextPart, ThinkingPart, ToolCallPart, Usage

from oneturn import ReAct
from oneturn.config import LMConfig
from oneturn.core._dspy import replaced_cache
from oneturn.core.steps import FinishedCall, Resumption, WaitingCall
from oneturn.lm import build_lm
from oneturn.lm.replay import state_in, with_replayed, with_state
from oneturn.programs.react.native import NativeAdapter
from oneturn.programs.react.trajectory import ToolCallArgs, Turn
from tests.programs.react.chat_stub import ChatStub, call_of, calls, chat_stub, message_of

STREAMING = pytest.mark.parametrize("streaming", [False, True])
DONE = calls(("finish", {"answer": "4 euros", "sure": True}))


def search(query: str) -> str:
    """Search."""
    return f"The fee is 4 euros ({query})."


def run(lm: dspy.BaseLM, streaming: bool) -> None:
    program = ReAct("question -> answer, sure: bool", tools=[search])
    program.set_lm(lm)
    if streaming:
        list(program.steps(question="?"))
    else:
        program(question="?")


# ---- Databricks


@pytest.fixture
def workspace(monkeypatch: pytest.MonkeyPatch) -> Any:
    """An LM of a workspace whose endpoints are a stub's."""

    def lm(stub: ChatStub, endpoint: str) -> dspy.BaseLM:
        monkeypatch.setenv("DATABRICKS_HOST", f"http://127.0.0.1:{stub.port}")
        monkeypatch.setenv("DATABRICKS_TOKEN", "t")
        return build_lm(LMConfig(model=f"databricks/{endpoint}", cache=False))

    return lm


def reasoning(**summary: str) -> dict[str, Any]:
    return {"type": "reasoning", "summary": [{"type": "summary_text", **summary}]}


ENCRYPTED = {"type": "reasoning", "summary": [{"type": "summary_encrypted_text", "data": "opaque"}]}
SIGNED = [
    reasoning(text="I should look it up.", signature="signature 1"),
    ENCRYPTED,
    reasoning(text="Now.", signature="signature 2"),
    {"type": "text", "text": "Looking."},
]
CHUNKS = [
    {"role": "assistant", "content": [reasoning(text="I should ", signature="")]},
    {"content": [reasoning(text="look it up.")]},
    {"content": [reasoning(text="", signature="signature 1")]},
    {"content": [ENCRYPTED]},
    {"content": [reasoning(text="Now.", signature="signature 2")]},
    {"content": [{"type": "text", "text": "Looking."}]},
    {"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "search", "arguments": ""}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": '{"query": "fee"}'}}]},
]


@STREAMING
def test_signed_thinking_goes_back_unchanged_to_databricks(workspace: Any, streaming: bool):
    look = message_of(call_of("search", {"query": "fee"}), content=SIGNED, chunks=CHUNKS)
    with chat_stub(look, DONE) as stub:
        run(workspace(stub, "databricks-claude-sonnet-4"), streaming)
    calling = stub.requests[1]["messages"][2]
    assert calling["content"] == SIGNED
    assert calling["tool_calls"][0]["id"] == stub.requests[1]["messages"][3]["tool_call_id"] == "call00000"
    assert "reasoning_content" not in calling


@STREAMING
def test_unsigned_reasoning_doesnt_go_back_to_databricks(workspace: Any, streaming: bool):
    content = [reasoning(text="Private."), {"type": "text", "text": "Looking."}]
    with chat_stub(message_of(call_of("search", {"query": "fee"}), content=content), DONE) as stub:
        run(workspace(stub, "databricks-gpt-oss-120b"), streaming)
    assert "Private." not in json.dumps(stub.requests[1])
    assert stub.requests[1]["messages"][2]["content"] == "Looking."


@STREAMING
def test_the_signature_of_a_call_goes_back_to_databricks(workspace: Any, streaming: bool):
    signed = call_of("search", {"query": "fee"}, thoughtSignature="signature")
    with chat_stub(message_of(signed), DONE) as stub:
        run(workspace(stub, "databricks-gemini-3-pro"), streaming)
    assert stub.requests[1]["messages"][2]["tool_calls"][0]["thoughtSignature"] == "signature"


# ---- Anthropic


@contextmanager
def anthropic_stub(*replies: list[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server of Anthropic's Messages API: its URL, and the requests that it gets."""
    requests: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            requests.append(body)
            blocks, usage = replies[len(requests) - 1], {"input_tokens": 1, "output_tokens": 2}
            said = {"id": "m", "role": "assistant", "model": body["model"], "stop_reason": "tool_use", "usage": usage}
            events = _events(blocks, usage) if body.get("stream") else ()
            payload = "".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n" for each in events)
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream" if events else "application/json")
            self.end_headers()
            self.wfile.write((payload or json.dumps({**said, "type": "message", "content": blocks})).encode())

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        server.server_close()


def _events(blocks: list[dict[str, Any]], usage: dict[str, int]) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = [{"type": "message_start", "message": {"id": "m", "usage": usage}}]
    for index, block in enumerate(blocks):
        deltas = {
            "thinking": [
                {"type": "thinking_delta", "thinking": block.get("thinking")},
                {"type": "signature_delta", "signature": block.get("signature")},
            ],
            "tool_use": [{"type": "input_json_delta", "partial_json": json.dumps(block.get("input"))}],
        }.get(block["type"], [])
        start = {**block, **{key: "" for key in ("thinking", "signature") if key in block}}
        start |= {"input": {}} if "input" in block else {}
        events.append({"type": "content_block_start", "index": index, "content_block": start})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    end = {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": usage}
    return [*events, end, {"type": "message_stop"}]


THOUGHT = [
    {"type": "thinking", "thinking": "A fee.", "signature": "signature"},
    {"type": "redacted_thinking", "data": "opaque"},
]
USE = {"type": "tool_use", "id": "t", "name": "search", "input": {"query": "fee"}}
END = {"type": "tool_use", "id": "u", "name": "finish", "input": {"answer": "4 euros", "sure": True}}


@STREAMING
def test_signed_thinking_goes_back_unchanged_to_anthropic(streaming: bool):
    with anthropic_stub([*THOUGHT, USE], [END]) as (url, requests):
        run(dspy.LM("anthropic/claude-sonnet-4-20250514", api_base=url, api_key="k", cache=False), streaming)
    assert requests[1]["messages"][1]["content"] == [*THOUGHT, {**USE, "id": "call00000"}]
    assert requests[0]["tool_choice"] == {"type": "any"}


@STREAMING
def test_claude_caches_the_chat_so_far(streaming: bool):
    with anthropic_stub([USE], [END]) as (url, requests):
        run(dspy.LM("anthropic/claude-sonnet-4-20250514", api_base=url, api_key="k", cache=False), streaming)
    for sent in requests:
        assert sent["system"][-1]["cache_control"] == {"type": "ephemeral"}
        assert sent["messages"][-1]["content"][-1]["cache_control"] == {"type": "ephemeral"}
    first, second = (
        json.dumps(sent["messages"]).replace(', "cache_control": {"type": "ephemeral"}', "") for sent in requests
    )
    assert second.startswith(first[:-1])
    assert requests[0]["tools"] == requests[1]["tools"]


def test_thinking_goes_back_from_dspys_cache_too():
    with replaced_cache(memory=True):
        with anthropic_stub([*THOUGHT, USE], [END]) as (url, _):
            run(dspy.LM("anthropic/claude-sonnet-4-20250514", api_base=url, api_key="k"), False)
        with anthropic_stub([{**END, "input": {"answer": "4", "sure": False}}]) as (url, requests):
            program = ReAct("question -> answer, sure: bool", tools=[search], max_iters=2)  # another last request
            program.set_lm(dspy.LM("anthropic/claude-sonnet-4-20250514", api_base=url, api_key="k"))
            assert program(question="?").answer == "4"
    assert requests[0]["messages"][1]["content"] == [*THOUGHT, {**USE, "id": "call00000"}]


# ---- Gemini


def request(*messages: Message, model: str = "gemini-3-pro") -> Request:
    return Request(model=model, messages=messages)


def called(*continuation: ContinuationState) -> Message:
    return Message(role="assistant", parts=(ToolCallPart("call00000", "search", {}, continuation=continuation),))


ASKED = Message(role="user", parts=(TextPart("?"),))
SIGNATURE = ContinuationState("gemini", "thought_signature", {"value": "signature"})


def test_a_signed_call_gets_its_signature_back():
    message = replaced_id(called(SIGNATURE), "provider's id")
    usage = Usage(input_tokens=1, output_tokens=1, total_tokens=2)
    response = Response(id=None, model="g", message=message, finish_reason="tool_call", usage=usage)
    state = state_in(with_state(response).message.parts[0].id)
    assert with_replayed(request(ASKED, called()), {"call00000": state}).messages[1] == called(SIGNATURE)


def replaced_id(message: Message, id: str) -> Message:
    (part,) = message.parts
    return Message(role=message.role, parts=(ToolCallPart(id, part.name, part.input, continuation=part.continuation),))


def test_an_unsigned_call_of_the_current_turn_is_marked_for_gemini_3_only():
    sent = with_replayed(request(ASKED, called(), ASKED, called()), {}).messages
    assert sent[1] == called()
    assert sent[3].parts[0].continuation[0].data == {"value": "skip_thought_signature_validator"}
    older = request(ASKED, called(), model="gemini-2.5-pro")
    assert with_replayed(older, {}) == older


def test_a_response_without_state_is_unchanged():
    parts = (ThinkingPart("hm"), ToolCallPart("a", "search", {}))
    usage = Usage(input_tokens=1, output_tokens=1, total_tokens=2)
    response = Response(
        id=None, model="m", message=Message(role="assistant", parts=parts), finish_reason="tool_call", usage=usage
    )
    assert with_state(response) is response


# ---- calls of which the signature is missing


@STREAMING
def test_calls_without_a_signature_are_written_as_text_if_they_are_refused(streaming: bool):
    def check(body: dict[str, Any]) -> str | None:
        if any(message.get("tool_calls") for message in body["messages"]):
            return "messages.1.content.0.type: Expected `thinking` or `redacted_thinking`, but found `tool_use`."
        return None

    program = ReAct("question -> answer, sure: bool", tools=[search])
    program.step.demos = [dspy.Example(question="Rum?", answer="8", sure=True).with_inputs("question")]
    before = FinishedCall("search", {"query": "fee"}, output="The fee is 4 euros.")
    at = Resumption(WaitingCall("search", {"query": "tea"}), (before,), approve=True)
    with chat_stub(DONE, DONE, check=check) as stub:
        program.set_lm(stub.lm())
        if streaming:
            list(program.resume(at, question="?"))
        else:
            program(question="?")
        sent = stub.requests[-1]
        assert "tools" in sent, "function calling goes on"
        assert 'You called finish with {"sure": true, "answer": "8"}.' in json.dumps(sent["messages"]).replace("\\", "")
        assert not streaming or "Result: The fee is 4 euros." in json.dumps(sent["messages"])
        roles = [message["role"] for message in sent["messages"]]
        assert all(one != other for one, other in itertools.pairwise(roles))


def turn(query: str, same: bool = False, state: str = "") -> Turn:
    made = ToolCallArgs(name="search", args={"query": query})
    return Turn(thought=None, tool_call=made, observation=f"about {query}").in_step(same, "", state)


@pytest.mark.parametrize(
    ("turns", "roles"),
    [
        ([turn("a"), turn("b", same=True)], ["user", "user"]),
        ([turn("s", state="signed"), turn("c"), turn("d", same=True)], ["assistant", "tool", "user", "user"]),
        ([turn("s", state="signed"), turn("t", same=True), turn("u")], ["assistant", "tool", "tool", "user"]),
    ],
)
def test_parallel_calls_without_a_signature_are_all_written_as_text(turns: list[Turn], roles: list[str]):
    program = ReAct("question -> answer", tools=[search])
    adapter = NativeAdapter(program.steps_schema, program.steps_schema.names, unsigned_as_text=True)
    messages = adapter.turn_messages(turns)
    assert [message["role"] for message in messages] == roles
    written = json.dumps(messages)
    assert all(f"about {each.tool_call.args['query']}" in written for each in turns if each.tool_call)
