"""An LM of known latency on a loopback port, in a process of its own: ``python -m benchmarks.serving.stub_lm PORT``.

It speaks OpenAI's chat completions, streaming and not, and answers each program in the program's own format: two tool
calls, then the answer. The answer begins with the moment at which its first piece was sent (``time.monotonic``, which
all processes of a machine share), so that whoever reads it knows how long it was on its way.
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
"""Seconds from a request to the reply's first piece."""
PACE = 0.002
"""Seconds between two pieces: 500 a second, faster than LMs write."""
WORDS = "stub words of the answer "


async def complete(request: Request) -> Response:
    """Answer one request."""
    _calls.append(1)
    body = await request.json()
    words = int(request.query_params.get("words", 32))
    await asyncio.sleep(LATENCY)
    pieces = _pieces(body["messages"], words)
    if body.get("stream"):
        return StreamingResponse(_streamed(pieces), media_type="text/event-stream")
    message = {"role": "assistant", "content": "".join(pieces)}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    return JSONResponse({**_head("chat.completion"), "choices": [choice], "usage": _USAGE})


async def calls(request: Request) -> Response:
    """How often it was asked."""
    return JSONResponse(len(_calls))


_calls: list[int] = []


async def _streamed(pieces: list[str]) -> AsyncIterator[str]:
    for piece in pieces:
        yield _event(choices=[{"index": 0, "finish_reason": None, "delta": {"content": _stamped(piece)}}])
        await asyncio.sleep(PACE)
    yield _event(choices=[{"index": 0, "finish_reason": "stop", "delta": {}}])
    yield _event(choices=[], usage=_USAGE)
    yield "data: [DONE]\n\n"


def _stamped(piece: str) -> str:
    return piece.replace(_STAMP, f"t={time.monotonic():.6f};")


_STAMP = "t=now;"
_USAGE = {"prompt_tokens": 100, "completion_tokens": 30, "total_tokens": 130}


def _head(kind: str) -> dict[str, Any]:
    return {"id": "stub", "object": kind, "created": 0, "model": "stub"}


def _event(**fields: Any) -> str:
    return f"data: {json.dumps({**_head('chat.completion.chunk'), **fields})}\n\n"


def _pieces(messages: list[dict[str, Any]], words: int) -> list[str]:
    """The reply, in pieces: by what the system message says of the format, and how far the run has come."""
    system, said = messages[0]["content"], messages[-1]["content"]
    answer = [_STAMP, *(f" {word}" for word in (WORDS * words).split()[:words])]
    if "You work in steps" in system:
        steps = sum(message["role"] == "assistant" for message in messages)
        if steps < 2:
            return [json.dumps({"thought": "I look.", "tool_call": {"name": "look_up", "args": {"word": f"w{steps}"}}})]
        return ['{"thought": "Done.", "tool_call": {"name": "finish", "args": {"answer": "', *answer, '"}}}']
    if "next_tool_name" in system:
        steps = sum(f"observation_{number}" in said for number in range(3))
        name, args = ("look_up", {"word": f"w{steps}"}) if steps < 1 else ("finish", {})
        return [_sections(next_thought="I look.", next_tool_name=name, next_tool_args=json.dumps(args))]
    return ["[[ ## reasoning ## ]]\nSo.\n\n[[ ## answer ## ]]\n", *answer, "\n\n[[ ## completed ## ]]\n"]


def _sections(**fields: str) -> str:
    told = "".join(f"[[ ## {name} ## ]]\n{value}\n\n" for name, value in fields.items())
    return f"{told}[[ ## completed ## ]]\n"


app = Starlette(routes=[Route("/v1/chat/completions", complete, methods=["POST"]), Route("/calls", calls)])

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
