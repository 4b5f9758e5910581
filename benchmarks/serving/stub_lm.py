"""A stub LM with a fixed latency on a loopback port: ``python -m benchmarks.serving.stub_lm PORT``.

It implements OpenAI's chat completions, streaming or not, and replies in the format of the calling program: tool calls,
then the answer. The answer starts with the time at which its first piece was sent (``time.monotonic``, which all
processes of a machine share), so that the client can compute the delay.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

LATENCY = 0.05
"""Seconds from a request to the first piece of the reply."""
PACE = 0.002
"""Seconds between two pieces: 500 a second, faster than LMs write."""
WORDS = "stub words of the answer "


async def complete(request: Request) -> Response:
    """Handle one chat completion request."""
    _calls.append(1)
    body = await request.json()
    words = int(request.query_params.get("words", 32))
    await asyncio.sleep(LATENCY)
    pieces = _pieces(body["messages"], words)
    if body.get("stream"):
        return StreamingResponse(_stream(pieces), media_type="text/event-stream")
    message = {"role": "assistant", "content": "".join(pieces)}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    return JSONResponse({**_head("chat.completion"), "choices": [choice], "usage": _USAGE})


async def calls(request: Request) -> Response:
    """Return the number of requests so far."""
    return JSONResponse(len(_calls))


_calls: list[int] = []


async def _stream(pieces: list[str]) -> AsyncIterator[str]:
    for piece in pieces:
        yield _event(choices=[{"index": 0, "finish_reason": None, "delta": {"content": _with_timestamp(piece)}}])
        await asyncio.sleep(PACE)
    yield _event(choices=[{"index": 0, "finish_reason": "stop", "delta": {}}])
    yield _event(choices=[], usage=_USAGE)
    yield "data: [DONE]\n\n"


def _with_timestamp(piece: str) -> str:
    return piece.replace(_TIMESTAMP, f"t={time.monotonic():.6f};")


_TIMESTAMP = "t=now;"
_USAGE = {"prompt_tokens": 100, "completion_tokens": 30, "total_tokens": 130}


def _head(kind: str) -> dict[str, Any]:
    return {"id": "stub", "object": kind, "created": 0, "model": "stub"}


def _event(**fields: Any) -> str:
    return f"data: {json.dumps({**_head('chat.completion.chunk'), **fields})}\n\n"


def _pieces(messages: list[dict[str, Any]], words: int) -> list[str]:
    """Return the reply in pieces, in the format that the system message describes, for the current step of the run."""
    system, last = messages[0]["content"], messages[-1]["content"]
    answer = [_TIMESTAMP, *(f" {word}" for word in (WORDS * words).split()[:words])]
    if "You work in steps" in system:
        steps = sum(message["role"] == "assistant" for message in messages)
        if steps < 2:
            return [json.dumps({"thought": "I look.", "tool_call": {"name": "look_up", "args": {"word": f"w{steps}"}}})]
        return ['{"thought": "Done.", "tool_call": {"name": "finish", "args": {"answer": "', *answer, '"}}}']
    if "next_tool_name" in system:
        steps = sum(f"observation_{number}" in last for number in range(3))
        name, args = ("look_up", {"word": f"w{steps}"}) if steps < 1 else ("finish", {})
        return [_sections(next_thought="I look.", next_tool_name=name, next_tool_args=json.dumps(args))]
    return ["[[ ## reasoning ## ]]\nSo.\n\n[[ ## answer ## ]]\n", *answer, "\n\n[[ ## completed ## ]]\n"]


def _sections(**fields: str) -> str:
    text = "".join(f"[[ ## {name} ## ]]\n{value}\n\n" for name, value in fields.items())
    return f"{text}[[ ## completed ## ]]\n"


app = Starlette(routes=[Route("/v1/chat/completions", complete, methods=["POST"]), Route("/calls", calls)])

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
