"""uvicorn's HTTP protocol with time limits for slow clients, and error objects for what isn't HTTP."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from oneturn.responses.errors import error_object
from oneturn.serving.http_errors import invalid_request

REQUEST_SECONDS = 60.0
"""How long a client may take to send a request, its head and its body, from the first byte or the connection on."""

GRACE_SECONDS = 5
"""How long open requests may go on after the server is stopped; then their runs are cancelled."""

SEND_SECONDS = 60.0
"""How long a client may read nothing of a response that waits for it."""


class TimedProtocol(H11Protocol):
    """The protocol of one connection of an :class:`oneturn.serving.app.AgentApplication`.

    It closes connections of clients that send or read too slowly; uvicorn itself waits for them for ever.
    """

    app: Any  # an AgentApplication
    _arriving: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time of the first request."""
        super().connection_made(transport)
        self._limit_arrival()

    def data_received(self, data: bytes) -> None:
        """Start the time of a further request, and end it when the request is complete."""
        super().data_received(data)
        self._limit_arrival()

    def pause_writing(self) -> None:
        """Start the time for a client to read."""
        super().pause_writing()
        self._unread = self._unread or self.loop.call_later(SEND_SECONDS, self._abort)

    def resume_writing(self) -> None:
        """End the time for a client to read."""
        super().resume_writing()
        self._unread = _cancel(self._unread)

    def connection_lost(self, exc: Exception | None) -> None:
        """End all times."""
        self._arriving, self._unread = _cancel(self._arriving), _cancel(self._unread)
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Let an open request finish; after ``GRACE_SECONDS``, cancel its run, so that it has a terminal event."""
        super().shutdown()
        if not self.transport.is_closing():
            self.loop.call_later(GRACE_SECONDS, self.app.stop)

    def send_400_response(self, msg: str) -> None:
        """Answer what isn't an HTTP request, unless a response has begun."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = json.dumps({"error": error_object(invalid_request(msg))}).encode()
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                (b"connection", b"close"),
            ]
            events: list[Any] = [h11.Response(status_code=400, headers=headers, reason=b"Bad Request")]
            for event in [*events, h11.Data(data=body), h11.EndOfMessage()]:
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _limit_arrival(self) -> None:
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._arriving = _cancel(self._arriving)
        elif self._arriving is None:
            self._arriving = self.loop.call_later(REQUEST_SECONDS, self._abort)

    def _abort(self) -> None:
        self.transport.abort()


def _cancel(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """Cancel a timer; return the one that is running now, which is none."""
    if timer is not None:
        timer.cancel()
    return None
