"""An LM's endpoint on a loopback port that finishes at once, for agents that run in a process of their own."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@contextmanager
def stub_lm(answer: str | Callable[[str], dict[str, Any]]) -> Iterator[str]:
    """OpenAI's chat completions at the URL that this gives.

    Args:
        answer: each reply finishes a run of ``oneturn.ReAct`` with this answer; or a function of the request's
            messages, as JSON, that returns the step.
    """
    usage = {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}
    reply = {"id": "c", "object": "chat.completion", "created": 0, "model": "stub", "usage": usage}

    def step(request: dict[str, Any]) -> dict[str, Any]:
        if callable(answer):
            return answer(json.dumps(request["messages"], ensure_ascii=False))
        return {"tool_call": {"name": "finish", "args": {"answer": answer}}}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream" if asked.get("stream") else "application/json")
            self.end_headers()
            message = {"role": "assistant", "content": json.dumps(step(asked))}
            choice = {"index": 0, "finish_reason": "stop"}
            whole = reply | {"choices": [choice | {"message": message}]}
            piece = reply | {"object": "chat.completion.chunk", "choices": [choice | {"delta": message}]}
            payload = f"data: {json.dumps(piece)}\n\ndata: [DONE]\n\n" if asked.get("stream") else json.dumps(whole)
            self.wfile.write(payload.encode())

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
