"""MLflow's ``AgentServer`` as an ASGI application that runs an agent in threads and tells errors as OpenAI does.

MLflow keeps one pair of functions a process. Ours find out from a context variable which application's request they
are answering, so that any number of applications can live in one process.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import math
from collections import deque
from collections.abc import AsyncIterator
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
from oneturn.responses.request import first_problem

THREADS = 64
"""Requests answered at the same time by one application; more wait for their turn."""

_SEND_A_LIST = 'input is a string, and MLflow takes items only: send input=[{"role": "user", "content": "…"}].'

_log = logging.getLogger(__name__)


def application(agent: ResponsesAgent) -> AgentApplication:
    """The ASGI application that serves ``agent`` at ``/responses`` and ``/invocations``, with ``GET /health``.

    Raises:
        OneTurnError: somebody else has given MLflow's server its functions in this process.
    """
    _register()
    app = AgentServer("ResponsesAgent").app
    app.add_exception_handler(HTTPException, _told)
    app.add_exception_handler(AttributeError, _told)  # MLflow's, when the body is JSON but no object
    app.add_exception_handler(Exception, _crashed)
    return AgentApplication(app, agent)


class AgentApplication:
    """The outermost layer: opens an exchange for each request, and ends it when the request does."""

    def __init__(self, app: ASGIApp, agent: ResponsesAgent):
        self._app = app
        self._agent = agent
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="oneturn-request")
        self._open: set[_Exchange] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = _Exchange(self._agent, self._pool)
        token = _exchange.set(exchange)
        self._open.add(exchange)
        try:
            await self._app(scope, receive, _Gate(exchange, scope, receive, send))
        finally:  # also when the client has gone away
            self._open.discard(exchange)
            exchange.control.cancel("client_gone")
            _exchange.reset(token)

    def stop(self) -> None:
        """End every request that is still being answered, each with its terminal event."""
        for exchange in list(self._open):
            exchange.control.cancel("shutting_down")


class _Gate:
    """Holds back the head of a response until its body begins: what fails before that still gets a status of its own.

    MLflow's server has said 200 to a stream before the agent is asked. Events that wait for each other go out together.
    """

    def __init__(self, exchange: _Exchange, scope: Scope, receive: Receive, send: Send):
        self._exchange = exchange
        self._scope = scope
        self._receive = receive
        self._send = send
        self._head: Message | None = None
        self._replaced = False
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._head = message
            return
        if self._head is not None:
            head, self._head = self._head, None
            refusal = self._exchange.refusal
            if refusal is not None and head["status"] == 200:
                self._replaced = True
                await _failed(refusal)(self._scope, self._receive, self._send)
            else:
                await self._send(head)
        if self._replaced:
            return
        self._body += message.get("body", b"")
        if not (message.get("more_body") and self._exchange.more):
            body, self._body = self._body, b""
            await self._send({**message, "body": body})


class _Exchange:
    """One HTTP request: who answers it, whether it has to stop, and how it failed."""

    def __init__(self, agent: ResponsesAgent, pool: ThreadPoolExecutor):
        self._agent = agent
        self._pool = pool
        self.control = RunContext()
        self.more = False  # whether the event that is being written has others waiting behind it
        self.failure: AgentError | None = None
        self.refusal: AgentError | None = None

    async def answer(self, request: ResponsesAgentRequest) -> ResponsesAgentResponse:
        """The whole response at once."""
        context = contextvars.copy_context()  # the span that is open, and MLflow's request headers
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._pool, context.run, self._predict, request)
        except Exception as error:
            self.failure = _failure(error)
            raise self.failure from error

    def _predict(self, request: ResponsesAgentRequest) -> ResponsesAgentResponse:
        with self.control.active():
            return self._agent.predict(request)

    async def stream(self, request: ResponsesAgentRequest) -> AsyncIterator[ResponsesAgentStreamEvent]:
        """The events as they happen; one thread runs the agent from beginning to end, in one context."""
        await self._refuse(request)
        events = _Events(asyncio.get_running_loop())

        def run() -> None:
            stream = self._agent.predict_stream(request)
            try:
                with self.control.active(), contextlib.closing(stream):
                    for event in stream:
                        events.put(event)
                        if self.control.reason == "client_gone":
                            break
            except Exception as error:  # ResponsesAdapter never raises here; another ResponsesAgent may
                failure = _failure(error)
                fields = {"type": "error", "code": failure.code, "message": str(failure)}
                events.put(ResponsesAgentStreamEvent.model_validate(fields))
            finally:
                events.put(None)

        asyncio.get_running_loop().run_in_executor(self._pool, contextvars.copy_context().run, run)
        try:
            while (event := await events.get()) is not None:
                self.more = events.waiting
                yield event
        finally:
            self.more = False

    async def _refuse(self, request: ResponsesAgentRequest) -> None:
        """Refuse a request that can't be answered while there is still a status to say it with."""
        if not isinstance(self._agent, ResponsesAdapter):
            return
        try:
            run = contextvars.copy_context().run  # the program may be built now, with the user's credentials
            await asyncio.get_running_loop().run_in_executor(self._pool, run, self._agent.inputs, request)
        except Exception as error:
            self.refusal = _failure(error)
            raise self.refusal from error


class _Events:
    """The way from the thread that runs the agent to the event loop, which is woken once for all that is waiting."""

    def __init__(self, loop: asyncio.AbstractEventLoop):
        self._loop = loop
        self._queue: deque[ResponsesAgentStreamEvent | None] = deque()
        self._filled = asyncio.Event()
        self._waking = False

    @property
    def waiting(self) -> bool:
        """Whether there is one that can be had at once."""
        return bool(self._queue)

    def put(self, event: ResponsesAgentStreamEvent | None) -> None:
        """Hand over an event, ``None`` at the end; from the agent's thread."""
        self._queue.append(event)
        if not self._waking:
            self._waking = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: the server was stopped
                self._loop.call_soon_threadsafe(self._filled.set)

    async def get(self) -> ResponsesAgentStreamEvent | None:
        """The next event; on the event loop."""
        while not self._queue:
            await self._filled.wait()
            self._filled.clear()
            self._waking = False  # before the queue is looked at: what is put after this wakes again
        return self._queue.popleft()


_exchange: contextvars.ContextVar[_Exchange] = contextvars.ContextVar("oneturn_exchange")


async def request(request: ResponsesAgentRequest) -> ResponsesAgentResponse:
    """What MLflow calls to answer; its name is that of the trace's outermost span."""
    return await _exchange.get().answer(request)


async def request_stream(request: ResponsesAgentRequest) -> AsyncIterator[ResponsesAgentStreamEvent]:
    """What MLflow calls to answer as a stream."""
    async for event in _exchange.get().stream(request):
        yield event


def _register() -> None:
    if get_invoke_function() is None and get_stream_function() is None:
        invoke()(request)
        stream()(request_stream)
    elif (get_invoke_function(), get_stream_function()) != (request, request_stream):
        raise OneTurnError(
            "This process has used mlflow's @invoke() or @stream() already, which it allows once; "
            "serve the agent from another process."
        )


def _failure(error: Exception) -> AgentError:
    failure = to_client_error(error)
    if failure.code == "server_error" and not isinstance(error, AgentError):
        _log.error("The agent failed.", exc_info=error)
    else:
        _log.warning("%s: %s", failure.code, failure)
    return failure


async def _told(request: Request, error: Exception) -> JSONResponse:
    """An error as OpenAI's API tells it. Of one that is neither the agent's nor the client's, only that it happened."""
    failure = _exchange.get().failure
    if failure is not None:
        return _failed(failure)
    status = error.status_code if isinstance(error, HTTPException) else 400
    if status == 400 and (reason := await _refused(request)):
        return _body(400, "invalid_request", reason)
    if isinstance(error, HTTPException) and 400 < status < 500:
        return _body(status, "invalid_request", f"{error.detail}: {request.method} {request.url.path}")
    return await _crashed(request, error)


def _failed(failure: AgentError) -> JSONResponse:
    response = _body(failure.status or 500, failure.code, str(failure))
    if failure.retry_after is not None:
        response.headers["Retry-After"] = str(math.ceil(failure.retry_after))
    return response


async def _crashed(request: Request, error: Exception) -> JSONResponse:
    return _body(500, "server_error", "The server failed; its log tells more.")


async def _refused(request: Request) -> str | None:
    """Why MLflow refuses this request, if it does."""
    try:
        data = await request.json()
    except ValueError:
        return "The request's body isn't JSON."
    if not isinstance(data, dict):
        return "The request's body must be a JSON object."
    if isinstance(data.get("input"), str):
        return _SEND_A_LIST
    try:
        ResponsesAgentRequest(**data)
    except ValidationError as invalid:
        return first_problem(invalid)
    return None


def _body(status: int, code: str, message: str) -> JSONResponse:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": code}}, status)


def _untold(record: logging.LogRecord) -> bool:
    """Leaves out of MLflow's log the tracebacks of failures that are answered, and logged in one line, here."""
    return not (record.exc_info and isinstance(record.exc_info[1], AgentError))


logging.getLogger("mlflow.genai.agent_server.server").addFilter(_untold)
