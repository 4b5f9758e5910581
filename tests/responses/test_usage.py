"""The usage in a response: the figures of the LM's API, streamed and not."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import dspy
import pytest
from mlflow.types.responses import ResponsesAgentRequest

import oneturn
from oneturn.core.usage import Usage
from oneturn.testing import call, finish

REPLIES = (call("search", query="fees"), finish(answer="It is 4 euros."))
QUESTION = ResponsesAgentRequest(input=[{"role": "user", "content": "What is the fee?"}])


def search(query: str) -> str:
    """Search the handbook."""
    return "The fee is 4 euros."


def openai(text: str, streamed: bool) -> Iterator[dict[str, Any]]:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 7,
        "total_tokens": 107,
        "prompt_tokens_details": {"cached_tokens": 80},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    head = {"id": "c", "created": 0, "model": "gpt-4o-mini"}
    message = {"role": "assistant", "content": text}
    if streamed:
        chunk = {**head, "object": "chat.completion.chunk"}
        yield {**chunk, "choices": [{"index": 0, "finish_reason": "stop", "delta": message}]}
        yield {**chunk, "choices": [], "usage": usage}
    else:
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        yield {**head, "object": "chat.completion", "choices": [choice], "usage": usage}


def anthropic(text: str, streamed: bool) -> Iterator[dict[str, Any]]:
    usage = {"input_tokens": 60, "cache_read_input_tokens": 30, "cache_creation_input_tokens": 10, "output_tokens": 7}
    message = {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5",
        "stop_reason": "end_turn",
    }
    if streamed:
        start = {**message, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
        yield {"type": "message_start", "message": start}
        yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
        yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
        yield {"type": "content_block_stop", "index": 0}
        yield {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage}
        yield {"type": "message_stop"}
    else:
        yield {**message, "content": [{"type": "text", "text": text}], "usage": usage}


@pytest.fixture
def api_base() -> Iterator[str]:
    """An API in the format that the path names, which answers with ``REPLIES``."""
    texts = iter([json.dumps(reply) for reply in REPLIES])

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            streamed = json.loads(self.rfile.read(int(self.headers["Content-Length"]))).get("stream", False)
            events = (anthropic if self.path.endswith("/messages") else openai)(next(texts), streamed)
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream" if streamed else "application/json")
            self.end_headers()
            for event in events:
                name = f"event: {event['type']}\n" if "type" in event else ""
                body = json.dumps(event)
                self.wfile.write((f"{name}data: {body}\n\n" if streamed else body).encode())

        def log_message(self, *arguments: object) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("model", "read", "written", "reasoning"),
    [
        ("openai/gpt-4o-mini", {"cached_tokens": 160, "cache_write_tokens": 0}, 14, 6),
        ("anthropic/claude-sonnet-4-5", {"cached_tokens": 60, "cache_write_tokens": 20}, 14, 0),
    ],
)
@pytest.mark.parametrize("streaming", [True, False])
def test_the_response_has_the_cached_and_the_reasoning_tokens(
    api_base: str, model: str, read: dict[str, int], written: int, reasoning: int, streaming: bool
):
    program = oneturn.ReAct("question -> answer", tools=[search])
    base = api_base if model.startswith("openai") else api_base.removesuffix("/v1")
    program.set_lm(dspy.LM(model, api_base=base, api_key="k", cache=False, num_retries=0))
    agent = oneturn.ResponsesAdapter(program)
    expected = {
        "input_tokens": 200,
        "input_tokens_details": read,
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": 200 + written,
    }
    if streaming:
        *_, last = agent.predict_stream(QUESTION)
        usage = last.model_dump()["response"]["usage"]
    else:
        usage = agent.predict(QUESTION).model_dump()["usage"]
    assert usage == expected


def test_the_cost_of_a_run_has_the_price_of_cached_tokens(api_base: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    lm = dspy.LM("openai/gpt-4o-mini", api_base=api_base, api_key="k", cache=False, num_retries=0)
    program = oneturn.ReAct("question -> answer", tools=[search])
    example = dspy.Example(question="What is the fee?").with_inputs("question")
    (row,) = oneturn.evaluate(program, [example], lambda *_: 1.0, lm=lm, progress=False).rows.to_dict("records")
    usage = Usage.from_dict(row)
    assert usage == Usage(2, 200, 14, cached_tokens=160, reasoning_tokens=6, cost=usage.cost)
    assert usage.cost == pytest.approx((40 * 0.15 + 160 * 0.075 + 14 * 0.60) / 1e6), (
        "OpenAI's prices per million tokens"
    )
