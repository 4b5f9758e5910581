"""An ASGI middleware that reads request bodies: of JSON only, up to a size, within a time."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oneturn.errors import AgentError
from oneturn.serving.http_errors import error_response, invalid_request


class BodyLimit:
    """Hands requests on with their whole body, or answers 413, 408 or 415.

    Args:
        app: the application.
        max_bytes: how large a body may be.
        seconds: how long a client may take to send it.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, seconds: float):
        self._app = app
        self._max_bytes = max_bytes
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        try:
            _check_type(Headers(scope=scope))
            body = await asyncio.wait_for(self._read(scope, receive), self._seconds)
        except asyncio.TimeoutError:
            error = invalid_request(f"The request's body didn't arrive within {self._seconds:g} s.", status=408)
            await error_response(error, {"Connection": "close"})(scope, receive, send)
        except AgentError as error:
            await error_response(error)(scope, receive, send)
        else:
            if body is not None:
                await self._app(scope, _Replay(body, receive), send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """Return the body; ``None`` if the client has disconnected.

        Raises:
            AgentError: it is too large.
        """
        length = Headers(scope=scope).get("content-length", "")
        if length.isdecimal() and int(length) > self._max_bytes:
            raise self._too_large()
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if len(body) > self._max_bytes:
                raise self._too_large()
            if not message.get("more_body"):
                return bytes(body)

    def _too_large(self) -> AgentError:
        limit = f"{self._max_bytes:,} bytes"
        return invalid_request(f"The request's body is larger than {limit} (serve.max_body_mb).", status=413)


class _Replay:
    """An ASGI ``receive`` that first returns a body that was read."""

    def __init__(self, body: bytes, receive: Receive):
        self._message: Message | None = {"type": "http.request", "body": body, "more_body": False}
        self._receive = receive

    async def __call__(self) -> Message:
        message, self._message = self._message, None
        return message or await self._receive()


def _check_type(headers: Headers) -> None:
    """Refuse a body that isn't declared as JSON. A page of another site can't send one without CORS."""
    given = headers.get("content-type", "")
    kind = given.partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        message = f"The request's content type is {given!r:.80}; send JSON with Content-Type: application/json."
        raise invalid_request(message, status=415)
