"""A chat-completions server on a loopback port that replies from a script, streaming or not, and keeps the requests."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import dspy

Message = dict[str, Any]
Check = Callable[[dict[str, Any]], str | tuple[int, dict[str, Any]] | None]
"""Returns why a request is refused with status 400, or the status and the error; ``None`` if it isn't refused."""

_ENVELOPE = ("finish_reason", "usage", "chunks")
_USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def calls(*made: tuple[str, dict[str, Any]], text: str | None = None, reasoning: str | None = None) -> Message:
    """An assistant's message with function calls."""
    functions = [{"name": name, "arguments": json.dumps(args)} for name, args in made]
    tool_calls = [{"id": f"x{n}", "type": "function", "function": each} for n, each in enumerate(functions)]
    message: Message = {"role": "assistant", "content": text, "tool_calls": tool_calls}
    return message if reasoning is None else {**message, "reasoning_content": reasoning}


def call_of(name: str, arguments: Any, **more: Any) -> Message:
    """A function call; ``arguments`` that aren't an object are sent as they are."""
    text = json.dumps(arguments) if isinstance(arguments, dict) else arguments
    return {"id": "x0", "type": "function", "function": {"name": name, "arguments": text}, **more}


def message_of(*tool_calls: Message, **more: Any) -> Message:
    """An assistant's message with these function calls and these other keys."""
    return {"role": "assistant", "content": None, "tool_calls": list(tool_calls), **more}


class ChatStub:
    """The server.

    A reply is a text or a message. The message may also have ``finish_reason`` and ``usage``, and ``chunks``: the
    deltas that are streamed instead of the message.

    Attributes:
        requests: the bodies of the requests so far, refused ones included.
    """

    def __init__(self, replies: tuple[str | Message, ...], check: Check):
        self.requests: list[dict[str, Any]] = []
        self._replies = iter(replies)
        self._check = check
        self.port = 0

    def lm(self, model: str = "openai/gpt-4o-mini", **options: Any) -> dspy.LM:
        """A plain ``dspy.LM`` that asks this server."""
        base = f"http://127.0.0.1:{self.port}/v1"
        return dspy.LM(model, api_base=base, api_key="k", **{"cache": False, "num_retries": 0, **options})

    def reply(self, body: dict[str, Any]) -> tuple[int, Any]:
        """Return the status and the message, or the error, for a request."""
        self.requests.append(body)
        if error := self._check(body):
            if isinstance(error, tuple):
                return error[0], {"error": error[1]}
            return 400, {"error": {"message": error, "type": "invalid_request_error", "code": None}}
        reply = next(self._replies)
        return 200, {"role": "assistant", "content": reply} if isinstance(reply, str) else reply


@contextmanager
def chat_stub(*replies: str | Message, check: Check = lambda body: None) -> Iterator[ChatStub]:
    """Serve the replies, in order."""
    stub = ChatStub(replies, check)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, message = stub.reply(body)
            envelope = {"id": "c", "created": 0, "model": body["model"]}
            if status != 200:
                payload = json.dumps(message)
            elif body.get("stream"):
                payload = "".join(f"data: {json.dumps({**envelope, **chunk})}\n\n" for chunk in _chunks(message))
                payload += "data: [DONE]\n\n"
            else:
                said = {key: value for key, value in message.items() if key not in _ENVELOPE}
                choice = {"index": 0, "message": said, "finish_reason": message.get("finish_reason", "stop")}
                envelope |= {"object": "chat.completion", "choices": [choice], "usage": message.get("usage", _USAGE)}
                payload = json.dumps(envelope)
            self.send_response(status)
            kind = "text/event-stream" if body.get("stream") and status == 200 else "application/json"
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(payload.encode())

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stub.port = server.server_port
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()


def _chunks(message: Message) -> Iterator[dict[str, Any]]:
    for delta in message.get("chunks") or _deltas(message):
        yield {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    end = {"index": 0, "delta": {}, "finish_reason": message.get("finish_reason", "stop")}
    yield {"object": "chat.completion.chunk", "choices": [end]}
    yield {"object": "chat.completion.chunk", "choices": [], "usage": message.get("usage", _USAGE)}


def _deltas(message: Message) -> Iterator[dict[str, Any]]:
    yield {"role": "assistant"}
    for key in ("reasoning_content", "content"):
        value = message.get(key) or ""
        pieces = _pieces(value) if isinstance(value, str) else ([part] for part in value)
        yield from ({key: piece} for piece in pieces)
    for index, call in enumerate(message.get("tool_calls") or []):
        function = call["function"]
        start = {**call, "index": index, "function": {"name": function["name"], "arguments": ""}}
        yield {"tool_calls": [start]}
        for piece in _pieces(function["arguments"] or ""):
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def _pieces(text: str) -> Iterator[str]:
    return (text[start : start + 5] for start in range(0, len(text), 5))
