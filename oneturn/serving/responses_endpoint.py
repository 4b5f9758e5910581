"""The endpoint that runs the agent: one request in, a response or a stream of events out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from oneturn.errors import AgentError
from oneturn.responses.dialects import DialectName
from oneturn.serving.http_errors import error_response, invalid_request
from oneturn.serving.request_id import HEADER
from oneturn.serving.request_limit import RequestLimit
from oneturn.serving.request_run import RequestRun
from oneturn.serving.served_agent import ServedAgent

if TYPE_CHECKING:
    from oneturn.serving.store.request import RequestStorage

_EVENT_STREAM = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # for nginx
]


MAX_DEPTH = 100
"""How many levels of objects and arrays a request's body may have."""


class OpenRuns:
    """The runs of the requests that are open."""

    def __init__(self) -> None:
        self._runs: set[RequestRun] = set()

    @contextlib.contextmanager
    def adding(self, run: RequestRun) -> Iterator[None]:
        """Hold a run until its request ends; cancel it then."""
        self._runs.add(run)
        try:
            yield
        finally:
            self._runs.discard(run)
            run.disconnect()  # a no-op for a finished run

    def stop(self) -> None:
        """Cancel all runs; each stream ends with a terminal event."""
        for run in list(self._runs):
            run.context.cancel("shutting_down")


class ResponsesEndpoint:
    """An ASGI application that answers the requests of one path.

    Args:
        served: the agent.
        dialect: the dialect of the path.
        limit: limits how many runs there are at a time.
        open_runs: holds the runs of open requests.
        storage: the server's response store, if it has one.
    """

    def __init__(
        self,
        served: ServedAgent,
        dialect: DialectName,
        limit: RequestLimit,
        open_runs: OpenRuns,
        storage: RequestStorage | None = None,
    ):
        self._served = served
        self._dialect = dialect
        self._limit = limit
        self._open_runs = open_runs
        self._storage = storage

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            body = await _read_body(request)
            headers = {**request.headers, HEADER: request.state.request_id}
            run = RequestRun(self._served, body, self._dialect, headers, self._limit)
            if self._storage is not None:
                run.conversation = self._storage.conversation(self._dialect, request.headers, body)
                run.idempotent = self._storage.idempotent(request.url.path, request.headers, body)
            with self._open_runs.adding(run):
                run.start()
                async with _watching(receive, run.disconnect):
                    await self._answer(run, scope, receive, send)
        except ClientDisconnect:
            return
        except AgentError as error:
            await error_response(error)(scope, receive, send)

    async def _answer(self, run: RequestRun, scope: Scope, receive: Receive, send: Send) -> None:
        if not run.streams:
            await JSONResponse(await run.response())(scope, receive, send)
            return
        chunks = await run.chunks()
        await send({"type": "http.response.start", "status": 200, "headers": list(_EVENT_STREAM)})
        async for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _read_body(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.body(), parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError):
        raise invalid_request("The request's body isn't JSON.") from None
    if _is_deeper(body, MAX_DEPTH):
        raise invalid_request(f"The request's body is nested more than {MAX_DEPTH} levels deep.")
    if not isinstance(body, dict):
        raise invalid_request("The request's body must be a JSON object.")
    if not isinstance(body.get("stream"), bool | None):
        raise invalid_request(f"stream is {body['stream']!r:.80}; send JSON true or false.", "stream")
    return body


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} isn't a JSON number.")
    return value


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether a JSON value is nested deeper; what reads the request later is recursive."""
    inner = [value]
    while inner and levels >= 0:
        inner = [each for outer in inner for each in _containers_in(outer)]
        levels -= 1
    return bool(inner)


def _containers_in(value: Any) -> Iterator[Any]:
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return (each for each in values if isinstance(each, dict | list))


@contextlib.asynccontextmanager
async def _watching(receive: Receive, on_disconnect: Callable[[], None]) -> Any:
    """Call ``on_disconnect`` if the client disconnects inside the block."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        on_disconnect()

    watcher = asyncio.create_task(watch())
    try:
        yield
    finally:
        watcher.cancel()
