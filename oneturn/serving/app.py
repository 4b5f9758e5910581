"""MLflow's ``AgentServer`` as an ASGI application that runs an agent in threads and returns OpenAI's error objects.

MLflow registers one pair of functions per process. The functions registered here read the current request from a
context variable, so that one process can run several applications.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import logging
import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor

from mlflow.genai.agent_server import AgentServer, get_invoke_function, get_stream_function, invoke, stream
from mlflow.pyfunc import ResponsesAgent
from mlflow.types.responses import ResponsesAgentRequest, ResponsesAgentResponse, ResponsesAgentStreamEvent
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oneturn.core.run_context import RunContext
from oneturn.errors import AgentError, OneTurnError
from oneturn.responses import ResponsesAdapter
from oneturn.responses.errors import to_client_error
from oneturn.responses.request import describe_validation_error

THREADS = 64
"""The number of requests that one application handles concurrently; further requests are queued."""

_STRING_INPUT = 'input is a string, but MLflow accepts only a list: send input=[{"role": "user", "content": "…"}].'

_Events = Generator[ResponsesAgentStreamEvent, None, None]

_log = logging.getLogger(__name__)


def application(agent: ResponsesAgent) -> AgentApplication:
    """Return the ASGI application that serves ``agent`` at ``/responses`` and ``/invocations``, with ``GET /health``.

    Raises:
        OneTurnError: other functions are registered with MLflow's server in this process.
    """
    _register()
    app = AgentServer("ResponsesAgent").app
    app.add_exception_handler(HTTPException, _error_response)
    app.add_exception_handler(AttributeError, _error_response)  # raised by MLflow if the body is JSON but not an object
    app.add_exception_handler(Exception, _server_error_response)
    return AgentApplication(app, agent)


class AgentApplication:
    """The outermost ASGI layer: creates an exchange per request and cancels its run when the request ends."""

    def __init__(self, app: ASGIApp, agent: ResponsesAgent):
        self._app = app
        self._agent = agent
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="oneturn-request")
        self._open_exchanges: set[_Exchange] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = _Exchange(self._agent, self._pool)
        token = _exchange.set(exchange)
        self._open_exchanges.add(exchange)
        try:
            await self._app(scope, receive, _DeferredSend(exchange, scope, receive, send))
        finally:  # also if the client disconnects
            self._open_exchanges.discard(exchange)
            exchange.run_context.cancel("client_gone")
            _exchange.reset(token)

    def stop(self) -> None:
        """Cancel every open request; each stream ends with a terminal event."""
        for exchange in list(self._open_exchanges):
            exchange.run_context.cancel("shutting_down")


class _DeferredSend:
    """An ASGI ``send`` that delays the response start until the first body message: a rejection can set the status.

    MLflow's server sends status 200 for a stream before it calls the agent. Queued events are sent in one message.
    """

    def __init__(self, exchange: _Exchange, scope: Scope, receive: Receive, send: Send):
        self._exchange = exchange
        self._scope = scope
        self._receive = receive
        self._send = send
        self._start: Message | None = None
        self._replaced = False
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        if self._start is not None:
            start, self._start = self._start, None
            rejection = self._exchange.rejection
            if rejection is not None and start["status"] == 200:
                self._replaced = True
                await _agent_error_response(rejection)(self._scope, self._receive, self._send)
            else:
                await self._send(start)
        if self._replaced:
            return
        self._body += message.get("body", b"")
        if not (message.get("more_body") and self._exchange.more):
            body, self._body = self._body, b""
            await self._send({**message, "body": body})


class _Exchange:
    """One HTTP request: its agent, its run context and its error."""

    def __init__(self, agent: ResponsesAgent, pool: ThreadPoolExecutor):
        self._agent = agent
        self._pool = pool
        self.run_context = RunContext()
        self.more = False  # whether more events are queued behind the current one
        self.failure: AgentError | None = None
        self.rejection: AgentError | None = None

    async def answer(self, request: ResponsesAgentRequest) -> ResponsesAgentResponse:
        """Return the complete response."""
        context = contextvars.copy_context()  # the active span, and MLflow's request headers
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._pool, context.run, self._predict, request)
        except Exception as error:
            self.failure = _failure(error)
            raise self.failure from error

    def _predict(self, request: ResponsesAgentRequest) -> ResponsesAgentResponse:
        with self.run_context.active():
            return self._agent.predict(request)

    async def stream(self, request: ResponsesAgentRequest) -> AsyncIterator[ResponsesAgentStreamEvent]:
        """Yield the events as they are produced; one thread runs the agent, in one context."""
        start = await self._parse(request)
        queue = _EventQueue(asyncio.get_running_loop())

        def run() -> None:
            stream = start()
            try:
                with self.run_context.active(), contextlib.closing(stream):
                    for event in stream:
                        queue.put(event)
                        if self.run_context.reason == "client_gone":
                            break
            except Exception as error:  # ResponsesAdapter never raises here; other ResponsesAgents may
                failure = _failure(error)
                fields = {"type": "error", "code": failure.code, "message": str(failure)}
                queue.put(ResponsesAgentStreamEvent.model_validate(fields))
            finally:
                queue.put(None)

        asyncio.get_running_loop().run_in_executor(self._pool, contextvars.copy_context().run, run)
        try:
            while (event := await queue.get()) is not None:
                self.more = queue.waiting
                yield event
        finally:
            self.more = False

    async def _parse(self, request: ResponsesAgentRequest) -> Callable[[], _Events]:
        """Parse the request before the response starts, so that an invalid one gets an error status.

        Returns:
            Starts the stream of events.

        Raises:
            AgentError: the request is invalid.
        """
        agent = self._agent
        if not isinstance(agent, ResponsesAdapter):
            return functools.partial(agent.predict_stream, request)
        try:
            run = contextvars.copy_context().run  # may build the program, with the user's credentials
            parsed = await asyncio.get_running_loop().run_in_executor(self._pool, run, agent.parse, request)
        except Exception as error:
            self.rejection = _failure(error)
            raise self.rejection from error
        if type(agent).predict_stream is not ResponsesAdapter.predict_stream:  # a subclass's own
            return functools.partial(agent.predict_stream, request)
        return functools.partial(agent.stream, parsed)


class _EventQueue:
    """A queue from the agent's thread to the event loop, with one wake-up for all queued events."""

    def __init__(self, loop: asyncio.AbstractEventLoop):
        self._loop = loop
        self._queue: deque[ResponsesAgentStreamEvent | None] = deque()
        self._filled = asyncio.Event()
        self._wake_scheduled = False

    @property
    def waiting(self) -> bool:
        """Whether an event is queued."""
        return bool(self._queue)

    def put(self, event: ResponsesAgentStreamEvent | None) -> None:
        """Add an event, or ``None`` at the end; called from the agent's thread."""
        self._queue.append(event)
        if not self._wake_scheduled:
            self._wake_scheduled = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: the server has stopped
                self._loop.call_soon_threadsafe(self._filled.set)

    async def get(self) -> ResponsesAgentStreamEvent | None:
        """Return the next event; called on the event loop."""
        while not self._queue:
            await self._filled.wait()
            self._filled.clear()
            self._wake_scheduled = False  # reset before reading the queue: a later put schedules a new wake-up
        return self._queue.popleft()


_exchange: contextvars.ContextVar[_Exchange] = contextvars.ContextVar("oneturn_exchange")


async def request(request: ResponsesAgentRequest) -> ResponsesAgentResponse:
    """Called by MLflow to answer a request; MLflow names the trace's root span after this function."""
    return await _exchange.get().answer(request)


async def request_stream(request: ResponsesAgentRequest) -> AsyncIterator[ResponsesAgentStreamEvent]:
    """Called by MLflow to answer a request with a stream."""
    async for event in _exchange.get().stream(request):
        yield event


def _register() -> None:
    if get_invoke_function() is None and get_stream_function() is None:
        invoke()(request)
        stream()(request_stream)
    elif (get_invoke_function(), get_stream_function()) != (request, request_stream):
        raise OneTurnError(
            "This process has already registered functions with mlflow's @invoke() or @stream(), allowed only once; "
            "serve the agent from another process."
        )


def _failure(error: Exception) -> AgentError:
    failure = to_client_error(error)
    if failure.code == "server_error" and not isinstance(error, AgentError):
        _log.error("The agent failed.", exc_info=error)
    else:
        _log.warning("%s: %s", failure.code, failure)
    return failure


async def _error_response(request: Request, error: Exception) -> JSONResponse:
    """Convert an error to OpenAI's error object; hide the details of an error in the server itself."""
    failure = _exchange.get().failure
    if failure is not None:
        return _agent_error_response(failure)
    status = error.status_code if isinstance(error, HTTPException) else 400
    if status == 400 and (reason := await _rejection_reason(request)):
        return _error_json(400, "invalid_request", reason)
    if isinstance(error, HTTPException) and 400 < status < 500:
        return _error_json(status, "invalid_request", f"{error.detail}: {request.method} {request.url.path}")
    return await _server_error_response(request, error)


def _agent_error_response(failure: AgentError) -> JSONResponse:
    response = _error_json(failure.status or 500, failure.code, str(failure))
    if failure.retry_after is not None:
        response.headers["Retry-After"] = str(math.ceil(failure.retry_after))
    return response


async def _server_error_response(request: Request, error: Exception) -> JSONResponse:
    return _error_json(500, "server_error", "The server failed; see its log for details.")


async def _rejection_reason(request: Request) -> str | None:
    """The reason why MLflow rejects this request; ``None`` if it is valid."""
    try:
        data = await request.json()
    except ValueError:
        return "The request's body isn't JSON."
    if not isinstance(data, dict):
        return "The request's body must be a JSON object."
    if isinstance(data.get("input"), str):
        return _STRING_INPUT
    try:
        ResponsesAgentRequest(**data)
    except ValidationError as invalid:
        return describe_validation_error(invalid)
    return None


def _error_json(status: int, code: str, message: str) -> JSONResponse:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": code}}, status)


def _is_unhandled(record: logging.LogRecord) -> bool:
    """A log filter that drops MLflow's tracebacks of ``AgentError``, which ``_failure`` logs in one line."""
    return not (record.exc_info and isinstance(record.exc_info[1], AgentError))


logging.getLogger("mlflow.genai.agent_server.server").addFilter(_is_unhandled)
