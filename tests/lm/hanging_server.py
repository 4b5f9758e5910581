"""A chat-completions server on a loopback port that stops at a chosen point and sees when its clients leave."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

import dspy

Stop = Literal["before the head", "before the first token", "in the reply", "for a retry", "never"]
"""Where a reply stops. ``"for a retry"``: it is status 429 with a ``Retry-After`` of an hour."""

TEXT = json.dumps({"thought": "t", "tool_call": {"name": "finish", "args": {"answer": "It is done."}}})
_USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


class HangingServer:
    """The server.

    Attributes:
        stop: where the next replies stop.
        open: the requests that are being answered.
        requests: how many requests came.
        connections: the connections that are open.
    """

    def __init__(self, stop: Stop):
        self.stop: Stop = stop
        self.open = self.requests = self.connections = 0
        self.port = 0
        self._changed = threading.Condition()

    def lm(self, model: str = "openai/gpt-4o-mini", **options: Any) -> dspy.LM:
        """A plain ``dspy.LM`` that asks this server."""
        base = f"http://127.0.0.1:{self.port}/v1"
        return dspy.LM(model, api_base=base, api_key="k", **{"cache": False, "num_retries": 3, **options})

    def wait(self, condition: Callable[[HangingServer], bool], seconds: float = 30) -> bool:
        """Wait until a condition on the server's attributes holds."""
        with self._changed:
            return self._changed.wait_for(lambda: condition(self), seconds)

    def count(self, requests: int = 0, open: int = 0, connections: int = 0) -> None:
        """Add to the counts."""
        with self._changed:
            self.requests += requests
            self.open += open
            self.connections += connections
            self._changed.notify_all()


@contextmanager
def hanging_server(stop: Stop) -> Iterator[HangingServer]:
    """Serve replies that stop."""
    hanging = HangingServer(stop)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            hanging.count(requests=1, open=1)
            try:
                self._reply(bool(body.get("stream")), hanging.stop)
            finally:
                hanging.count(open=-1)

        def _reply(self, stream: bool, stop: Stop) -> None:
            if stop == "before the head":
                return self._until_the_client_leaves()
            payload = _stream() if stream else _completion()
            status = 429 if stop == "for a retry" else 200
            self.send_response(status)
            self.send_header("Content-Type", "text/event-stream" if stream else "application/json")
            self.send_header("Content-Length", str(len(payload)))
            if status == 429:
                self.send_header("Retry-After", "3600")
            self.end_headers()
            if stop == "before the first token":
                return self._until_the_client_leaves()
            if stop == "in the reply":
                self.wfile.write(payload[: len(payload) // 2])
                return self._until_the_client_leaves()
            self.wfile.write(payload)
            return None

        def _until_the_client_leaves(self) -> None:
            self.close_connection = True
            self.connection.settimeout(60)
            with suppress(ConnectionResetError):
                assert self.connection.recv(1) == b""

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        request_queue_size = 256
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Say nothing: clients leave while they are written to."""

        def get_request(self) -> tuple[socket.socket, Any]:
            connection, address = super().get_request()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            hanging.count(connections=1)
            return connection, address

        def close_request(self, request: Any) -> None:
            super().close_request(request)
            hanging.count(connections=-1)

    server = Server(("127.0.0.1", 0), Handler)
    hanging.port = server.server_port
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield hanging
    finally:
        server.shutdown()
        server.server_close()


def _completion() -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}
    envelope = {"id": "c", "created": 0, "model": "m", "object": "chat.completion", "choices": [choice]}
    return json.dumps({**envelope, "usage": _USAGE}).encode()


def _stream() -> bytes:
    deltas: list[dict[str, Any]] = [{"role": "assistant"}]
    deltas += [{"content": TEXT[start : start + 5]} for start in range(0, len(TEXT), 5)]
    envelope = {"id": "c", "created": 0, "model": "m", "object": "chat.completion.chunk"}
    chunks = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    chunks.append({"choices": [], "usage": _USAGE})
    lines = [f"data: {json.dumps({**envelope, **chunk})}\n\n" for chunk in chunks]
    return "".join([*lines, "data: [DONE]\n\n"]).encode()
