"""An LM's chat-completions endpoint on loopback whose replies follow from the scenario named in the question.

A question carries the id of its cell, ``cell:<client>/<scenario>/<mode>``. Every call is recorded under that id:
the prompt, and whether the reply was finished or its connection closed before.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import threading
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from oneturn.testing import call, finish

CELL = re.compile(r"cell:([\w-]+/(\w+)/\w+)")
_LONG_ANSWER = "This answer is long enough to be cut in the middle of it, before its end."
_PIECE = 6  # characters per chunk
_LIMIT_SECONDS = 30.0  # for a client to leave
_USAGE = {"prompt_tokens": 100, "completion_tokens": 30, "total_tokens": 130}


@dataclasses.dataclass
class Call:
    """One call of the LM.

    Attributes:
        prompt: all messages as one text.
        streamed: whether the reply was asked for as a stream, which the agent does in a stream of its own.
        done: set when the reply was sent completely, or its connection was closed.
        abandoned: whether the connection was closed before the reply's end.
    """

    prompt: str
    streamed: bool
    done: threading.Event = dataclasses.field(default_factory=threading.Event)
    abandoned: bool = False


class CallLog:
    """The LM's calls, by cell."""

    def __init__(self) -> None:
        self._calls: dict[str, list[Call]] = defaultdict(list)

    def add(self, cell: str, call: Call) -> None:
        """Record a call."""
        self._calls[cell].append(call)

    def of(self, cell: str) -> list[Call]:
        """Return the calls of this cell so far, in order."""
        return list(self._calls[cell])


def scripted_lm(log: CallLog) -> Starlette:
    """Return the endpoint as an ASGI application that records its calls in ``log``."""

    async def chat_completions(request: Request) -> Response:
        body = await request.json()
        messages = [(message["role"], _text(message["content"])) for message in body["messages"]]
        prompt = "\n".join(text for _, text in messages)
        cell, scenario = CELL.findall(prompt)[-1]
        lm_call = Call(prompt, streamed=bool(body.get("stream")))
        log.add(cell, lm_call)
        text = json.dumps(_reply(scenario, messages))
        if lm_call.streamed:
            return StreamingResponse(_stream(request, lm_call, scenario, text), media_type="text/event-stream")
        try:
            if scenario == "leave":
                await _disconnected(request)
                lm_call.abandoned = True
            if scenario == "interrupted":
                return JSONResponse({"error": {"message": "overloaded", "type": "server_error"}}, 500)
            message = {"role": "assistant", "content": text}
            choices = [{"index": 0, "finish_reason": "stop", "message": message}]
            return JSONResponse({**_head("chat.completion"), "choices": choices, "usage": _USAGE})
        finally:
            lm_call.done.set()

    return Starlette(routes=[Route("/v1/chat/completions", chat_completions, methods=["POST"])])


async def _stream(request: Request, lm_call: Call, scenario: str, text: str) -> AsyncIterator[str]:
    pieces = [text[start : start + _PIECE] for start in range(0, len(text), _PIECE)]
    middle = text.find("in the middle") // _PIECE
    lm_call.abandoned = True
    try:
        for number, piece in enumerate(pieces):
            if number == middle and scenario == "interrupted":
                raise ConnectionAbortedError("the LM dies here, as the scenario says")
            if number == middle and scenario == "leave":
                await _disconnected(request)
                return
            yield _chunk(choices=[{"index": 0, "finish_reason": None, "delta": {"content": piece}}])
            await asyncio.sleep(0)
        yield _chunk(choices=[{"index": 0, "finish_reason": "stop", "delta": {}}])
        yield _chunk(choices=[], usage=_USAGE)
        yield "data: [DONE]\n\n"
        lm_call.abandoned = False
    finally:
        lm_call.done.set()


async def _disconnected(request: Request) -> None:
    async def wait() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    await asyncio.wait_for(wait(), _LIMIT_SECONDS)


def _reply(scenario: str, messages: list[tuple[str, str]]) -> dict[str, Any]:
    """Return the next step of ``oneturn.ReAct``; results of the run's tools are the messages after the question."""
    question = max(index for index, (role, text) in enumerate(messages) if role == "user" and CELL.search(text))
    before = "\n".join(text for _, text in messages[:question])
    results = [text for role, text in messages[question + 1 :] if role == "user"]
    sources: list[str] = []
    answer = "Hello there."
    match scenario:
        case "tool" | "second_turn" if "2 + 3" in messages[question][1]:
            if not results:
                return call("add", "I add them", a=2, b=3)
            answer = f"The sum is {results[-1]}."
        case "second_turn":
            answer = "You asked for a sum." if "The sum is 5" in before else "I know of no earlier question."
        case "citations":
            if not results:
                return call("search", "I look it up", query="ports")
            answer, sources = "Open port 443 [ports].", ["ports"]
        case "custom_inputs" if "tone: formal" in messages[question][1]:
            answer = "Good day to you."
        case "approval_yes" | "approval_no":
            if not results:
                return call("refund", "They want their money back", euros=150)
            answer = "The refund is on its way." if "150" in results[-1] else "There is no refund."
        case "client_tool":
            if not results:
                return call("clock", "They want to know the time", city="Rome")
            answer = f"It is {results[-1]} in Rome."
        case "interrupted" | "leave":
            answer = _LONG_ANSWER
    # The answer is last: text that comes before other outputs is held back until they are checked.
    return finish(sources=sources, sure=True, answer=answer)


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "\n".join(part.get("text", "") for part in content or [])


def _head(kind: str) -> dict[str, Any]:
    return {"id": "c", "object": kind, "created": 0, "model": "scripted"}


def _chunk(**fields: Any) -> str:
    return f"data: {json.dumps(_head('chat.completion.chunk') | fields)}\n\n"
