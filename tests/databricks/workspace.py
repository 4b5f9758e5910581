"""A loopback stand-in of a Databricks workspace's REST API, for the real SDKs.

It answers what a test gives it routes for, checks who asks, and remembers what it was asked. A call that it has no
route for, or a body that the SDK's own model doesn't know, fails the test.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

TOKEN = "dapi-of-the-owner"  # of nobody
OWNER = "owner@example.com"


@dataclass(frozen=True)
class Call:
    """What the workspace was asked.

    Attributes:
        method: ``GET``, ``POST``, …
        path: without the query.
        query: its parameters.
        headers: in lower case.
        body: the JSON of it, the bytes where it isn't JSON, ``None`` without one.
        user: whose credentials came with it.
        parts: what the named groups of the route's pattern have matched.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any
    user: str
    parts: Mapping[str, str] = field(default_factory=dict)

    def read_as(self, model: Any) -> Any:
        """The body as a model of the SDK; a field that it doesn't know is an error of the sender."""
        read = model.from_dict(self.body)
        unknown = _unknown(self.body, read.as_dict())
        assert not unknown, f"{self.method} {self.path}: {model.__name__} has no {', '.join(unknown)}"
        return read


@dataclass(frozen=True)
class Answer:
    """An answer that isn't simply JSON with status 200: ``body`` may be what is sent piece by piece."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


def refused(status: int, code: str, message: str) -> Answer:
    """An error as the workspace tells it."""
    return Answer(status, {"error_code": code, "message": message})


Handler = Callable[[Call], Any]


class Workspace:
    """A workspace for the time of a ``with`` block; leaving it fails if something unexpected was asked.

    Attributes:
        host: its address.
        calls: what it was asked, in order; calls for tokens are not among them.
        users: who a token belongs to; take one out, and it has expired.
        principals: service principals: their secrets by client id.
        issued: how many tokens they have got.
        seconds: how long such a token says that it holds.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.users: dict[str, str] = {TOKEN: OWNER}
        self.principals: dict[str, str] = {}
        self.issued = 0
        self.seconds = 3600
        self._routes: list[tuple[str, re.Pattern[str], Handler]] = []
        self._wrong: list[str] = []
        self._lock = threading.Lock()
        self.on("GET", "/api/2.0/preview/scim/v2/Me", lambda call: {"userName": call.user, "id": "1"})
        self.on("GET", "/.well-known/databricks-config", lambda call: {"oidc_endpoint": f"{self.host}/oidc"})

    def on(self, method: str, pattern: str, handler: Handler) -> None:
        """Answer calls to the paths that ``pattern`` matches whole (a regular expression); the last one added wins."""
        self._routes.insert(0, (method, re.compile(pattern), handler))

    def asked(self, method: str, pattern: str) -> list[Call]:
        """The calls of a method to paths that ``pattern`` matches whole."""
        return [call for call in self.calls if call.method == method and re.fullmatch(pattern, call.path)]

    def __enter__(self) -> Workspace:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.host = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        if kind is None:
            assert not self._wrong, "\n".join(self._wrong)

    def answer(self, call: Call) -> Answer:
        """What is answered to a call, which is written down."""
        if call.path.startswith("/oidc/"):
            return self._token(call)
        user = self.users.get(call.headers.get("authorization", "").removeprefix("Bearer "))
        if user is None and not call.path.startswith("/.well-known/"):
            return refused(401, "UNAUTHENTICATED", "Credential was not sent or was of an unsupported type.")
        for method, pattern, handler in self._routes:
            if method == call.method and (match := pattern.fullmatch(call.path)):
                authenticated = Call(**{**vars(call), "user": user or "", "parts": match.groupdict()})
                with self._lock:
                    self.calls.append(authenticated)
                return self._handled(authenticated, handler)
        return self._fails(f"No answer is registered for {call.method} {call.path}")

    def _handled(self, call: Call, handler: Handler) -> Answer:
        try:
            given = handler(call)
        except Exception as error:
            return self._fails(f"{call.method} {call.path}: {type(error).__name__}: {error}")
        return given if isinstance(given, Answer) else Answer(body=given)

    def _fails(self, reason: str) -> Answer:
        with self._lock:
            self._wrong.append(reason)
        return refused(404, "ENDPOINT_NOT_FOUND", reason)

    def _token(self, call: Call) -> Answer:
        """OAuth of service principals (RFC 6749, client credentials)."""
        if call.path.startswith("/oidc/.well-known/"):
            metadata = {"authorization_endpoint": f"{self.host}/oidc/v1/authorize"}
            return Answer(body={**metadata, "token_endpoint": f"{self.host}/oidc/v1/token"})
        basic = base64.b64decode(call.headers.get("authorization", "").removeprefix("Basic ")).decode()
        client, _, secret = basic.partition(":")
        if not secret or self.principals.get(client) != secret:
            return Answer(401, {"error": "invalid_client", "error_description": "Client authentication failed"})
        with self._lock:
            self.issued += 1
            token = f"token-{self.issued}-of-{client}"
            self.users[token] = client
        return Answer(body={"access_token": token, "token_type": "Bearer", "expires_in": self.seconds})


@contextmanager
def signed_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """A workspace whose owner's token this process has."""
    with Workspace() as workspace:
        monkeypatch.setenv("DATABRICKS_HOST", workspace.host)
        monkeypatch.setenv("DATABRICKS_TOKEN", TOKEN)
        yield workspace


def _unknown(sent: Any, known: Any, place: str = "") -> list[str]:
    if isinstance(sent, Mapping) and isinstance(known, Mapping):
        missing = [f"{place}{name}" for name in sent if name not in known and sent[name] not in (None, [], {})]
        return missing + [
            found for name in sent if name in known for found in _unknown(sent[name], known[name], f"{place}{name}.")
        ]
    if isinstance(sent, list) and isinstance(known, list):
        pairs = zip(sent, known, strict=True)
        return [
            found for number, (one, other) in enumerate(pairs) for found in _unknown(one, other, f"{place}{number}.")
        ]
    return []


def _handler(workspace: Workspace) -> type[BaseHTTPRequestHandler]:
    class Handling(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            answer = workspace.answer(self._call())
            pieces = _pieces(answer.body)
            self.send_response(answer.status)
            for name, value in {"Content-Type": "application/json", **answer.headers}.items():
                self.send_header(name, value)
            if isinstance(pieces, bytes):
                self.send_header("Content-Length", str(len(pieces)))
                self.end_headers()
                self.wfile.write(pieces)
                return
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in pieces:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")

        def _call(self) -> Call:
            found = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            sent = self.rfile.read(int(headers.get("content-length") or 0))
            query = {name: values[-1] for name, values in parse_qs(found.query).items()}
            return Call(self.command, found.path, query, headers, _body(sent, headers), "")

        def log_message(self, *arguments: Any) -> None:
            """Say nothing."""

    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"):
        setattr(Handling, f"do_{method}", Handling._answer)
    return Handling


def _body(sent: bytes, headers: Mapping[str, str]) -> Any:
    if not sent:
        return None
    return json.loads(sent) if "json" in headers.get("content-type", "") else sent


def _pieces(body: Any) -> bytes | Iterable[bytes]:
    if isinstance(body, bytes):
        return body
    if body is None or isinstance(body, dict | list | str):
        return json.dumps({} if body is None else body).encode()
    return (piece if isinstance(piece, bytes) else str(piece).encode() for piece in body)
