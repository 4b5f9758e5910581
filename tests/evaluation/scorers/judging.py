"""A server that speaks OpenAI's chat completions, and judges by a rule instead of an LM."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Rule = Callable[[str], str | int]


class JudgeServer(ThreadingHTTPServer):
    """Asked for a verdict, it says what ``rule`` says of the prompt; a number is an HTTP status.

    Attributes:
        prompts: what it was asked.
    """

    daemon_threads = True

    def __init__(self, rule: Rule):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.rule = rule
        self.prompts: list[str] = []

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server: Any = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = "\n".join(message["content"] for message in body["messages"])
        server.prompts.append(prompt)
        said = server.rule(prompt)
        if isinstance(said, int):
            self._send(said, {"error": {"message": "Incorrect API key provided: sk-abc1234567890123."}})
            return
        verdict = {"result": said, "rationale": f"It is a {said}."}
        message = {"role": "assistant", "content": json.dumps(verdict)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        completion = {"id": "1", "object": "chat.completion", "created": 0, "model": body["model"]}
        self._send(200, {**completion, "choices": [choice], "usage": usage})

    def _send(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@contextmanager
def judging(rule: Rule) -> Iterator[JudgeServer]:
    """A judge that is up for the time of the block."""
    with JudgeServer(rule) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
