"""The run of one HTTP request: in a thread of its own, read by the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
from collections.abc import AsyncIterator, Generator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.entities import LiveSpan
from mlflow.entities.span import NO_OP_SPAN_TRACE_ID
from mlflow.genai.agent_server.utils import set_request_headers
from mlflow.tracing.constant import SpanAttributeKey
from mlflow.types.responses import ResponsesAgentRequest, responses_agent_output_reducer

from oneturn.core.run_context import RunContext
from oneturn.core.terminal import visible
from oneturn.errors import AgentError
from oneturn.responses import ResponsesAdapter
from oneturn.responses.dialects import Dialect, DialectName
from oneturn.responses.errors import error_event, to_client_error
from oneturn.responses.parsing import read_request
from oneturn.responses.request_fields import RequestOptions, agent_request
from oneturn.responses.tool_items import ENDINGS, Event
from oneturn.responses.trace_fields import returns_trace_id
from oneturn.serving.page.traces import SERVED_BY
from oneturn.serving.request_id import HEADER
from oneturn.serving.request_limit import RequestLimit
from oneturn.serving.run_queue import RunQueue
from oneturn.serving.served_agent import ServedAgent
from oneturn.serving.store import RecordedAnswer

if TYPE_CHECKING:
    from oneturn.serving.store.conversation import StoredConversation
    from oneturn.serving.store.idempotency import IdempotentRequest

_USER_TOKEN = "x-forwarded-access-token"  # noqa: S105  # the name of a header
_RETURN_TRACE_ID = "x-mlflow-return-trace-id"
_DONE = b"data: [DONE]\n\n"
_WAITING = b": waiting\n\n"
"""A comment, which keeps the connection of a request alive that waits for its place."""

_log = logging.getLogger(__name__)


class RequestRun:
    """Runs the agent for one request. ``start`` it once, then read its ``response`` or its ``chunks``.

    Args:
        served: the agent.
        body: the request's body, an object.
        dialect: the dialect of the response.
        headers: the request's headers, with lower-case names, its id among them.
        limit: limits how many runs there are at a time.

    Attributes:
        streams: whether the response is streamed.
        context: the run's context.
        conversation: what the request uses of the response store, if the server has one; set it before ``start``.
        idempotent: the request's idempotency key, if it has one and the server has a store; set it before ``start``.
    """

    def __init__(
        self,
        served: ServedAgent,
        body: Mapping[str, Any],
        dialect: DialectName,
        headers: Mapping[str, str],
        limit: RequestLimit,
    ):
        self._served = served
        self._body = body
        self._dialect = dialect
        self._headers = dict(headers)
        self._limit = limit
        self.streams = body.get("stream") is True
        self.context = RunContext(streaming=self.streams, caller=self._headers.get(_USER_TOKEN) or "")
        self.conversation: StoredConversation | None = None
        self.idempotent: IdempotentRequest | None = None
        self._answer: RecordedAnswer | None = None
        self._held: list[Any] = []
        self._began = False  # the request wasn't refused
        self._queue: RunQueue

    def start(self) -> None:
        """Start the run in a thread of its own; called on the event loop.

        Raises:
            AgentError: the server has too many requests; the run isn't started.
        """
        self._limit.admit()
        self._queue = RunQueue(asyncio.get_running_loop())
        try:
            threading.Thread(target=self._run, name="oneturn-request", daemon=True).start()
        except RuntimeError as error:  # the system has no thread left
            self._limit.leave()
            raise AgentError(f"The server can't start a run: {error}.", "overloaded", 503, retryable=True) from error

    def disconnect(self) -> None:
        """Cancel the run: its client is gone. A run with an idempotency key goes on, for the client's next attempt."""
        if self.idempotent is None or not self.idempotent.claimed:
            self.context.cancel("client_gone")

    async def response(self) -> dict[str, Any]:
        """Wait for the response of a request that doesn't stream.

        Raises:
            AgentError: the request was refused, or the run failed.
        """
        response: dict[str, Any] = await self._queue.first()
        return response

    async def chunks(self) -> AsyncIterator[bytes]:
        """Wait for the first event of a stream, and return an iterator of the encoded events.

        Raises:
            AgentError: the request was refused.
        """
        return self._queue.rest(await self._queue.first())

    def _run(self) -> None:
        set_request_headers(self._headers)  # for code that reads them from MLflow
        try:
            with self.context.active():
                if self._is_answered():
                    return
                if self.streams:
                    self._stream()
                else:
                    self._put(self._respond(), last=True)
        except BaseException as error:
            self._fail(_failure(error))
            if not isinstance(error, Exception):
                raise
        finally:
            try:
                self._end_key()
            finally:  # whatever became of the key, the client gets its answer
                for value in self._held:
                    self._queue.put(value)
                self._queue.end()
                self._limit.leave()
            if self.conversation is not None:
                self.conversation.delete_expired()

    def _put(self, value: Any, *, last: bool = False) -> None:
        """Send a value. With an idempotency key, the last one and those after it are sent once the answer is kept."""
        if self._answer is None:
            self._queue.put(value)
            return
        self._answer.add(value)
        if last or self._held:
            self._held.append(value)
        else:
            self._queue.put(value)

    def _is_answered(self) -> bool:
        """Whether an earlier request with the same idempotency key had an answer, which is sent again."""
        if self.idempotent is None:
            return False
        answer = self.idempotent.claim(self._on_wait)
        if answer is not None:
            self._queue.put(answer.value)
        else:
            self._answer = RecordedAnswer()
            if self.context.reason == "client_gone":  # the key is free again for its next attempt
                raise AgentError("The client left before the run.", "client_gone", 503, retryable=True)
        return answer is not None

    def _end_key(self) -> None:
        """Keep the answer under the idempotency key, or release the key, before the client knows of the end."""
        if self._answer is not None and self.idempotent is not None:
            # A run that has claimed its key isn't cancelled by its client: a client that is gone left before.
            stopped = self.context.reason in ("shutting_down", "client_gone")
            self.idempotent.end(self._answer if self._began and not stopped else None)

    def _on_wait(self) -> None:
        if self.streams:
            self._queue.put(_WAITING)

    def _fail(self, failure: AgentError) -> None:
        if not self._queue.started:
            self._put(failure, last=True)
            return
        data = json.dumps(error_event(failure))  # the server itself failed while it sent a stream
        self._put(f"event: error\ndata: {data}\n\n".encode() + _DONE, last=True)

    def _respond(self) -> dict[str, Any]:
        agent = self._served.agent
        request, options = self._read_request()
        with self._span("request", request) as span:
            if isinstance(agent, ResponsesAdapter):
                parsed = agent.parse(request, options)
                self._began = True
                with self._limit.place(self._on_wait):
                    result = agent.run(parsed)
            else:
                self._began = True
                with self._limit.place(self._on_wait):
                    self._check_stopped()
                    result = agent.predict(request)
            response = _dump(result)
            if self._returns_trace_id:
                response["metadata"] = {**(response.get("metadata") or {}), "trace_id": span.trace_id}
            span.set_outputs(response)
        return self._saved(self._translation(options).response(response))

    def _stream(self) -> None:
        request, options = self._read_request()
        with self._span("request_stream", request) as span, contextlib.ExitStack() as cleanup:
            events = self._events(request, options)
            self._began = True
            cleanup.enter_context(self._limit.place(self._on_wait))
            cleanup.callback(events.close)
            if not isinstance(self._served.agent, ResponsesAdapter):
                self._check_stopped()
            translation = self._translation(options)
            if self._returns_trace_id:
                translation.metadata["trace_id"] = span.trace_id
            items: list[Any] = []
            outputs: Any = None
            for event in translation.events(events):
                if event["type"] in ENDINGS:
                    event = {**event, "response": self._saved(event["response"])}
                elif event["type"] == "error" and self._answer is not None:
                    self._answer.is_retryable = "Retry-After" in (event.get("error") or {}).get("headers", ())
                self._put(translation.encode(event), last=event["type"] in ENDINGS)
                if event["type"] == "response.output_item.done":
                    items.append(event)
                outputs = event["response"] if event["type"] in ENDINGS else outputs
                if self.context.reason == "client_gone":
                    break
            span.set_outputs(outputs or responses_agent_output_reducer(items))
            if self._returns_trace_id and self._dialect == "mlflow":
                self._put(f"data: {json.dumps({'trace_id': span.trace_id})}\n\n".encode())
        self._put(_DONE)

    def _check_stopped(self) -> None:
        """Stop an agent before its run that wouldn't look itself whether it may still run.

        Raises:
            AgentError: the client is gone, or the server stops.
        """
        if (reason := self.context.reason) is not None:
            raise AgentError(f"The run was stopped before it began: {reason}.", reason, 503, retryable=True)

    def _saved(self, response: dict[str, Any]) -> dict[str, Any]:
        """The response, saved in the store if the server has one."""
        if self._answer is not None:
            self._answer.response_id = response.get("id")
        return response if self.conversation is None else self.conversation.save(response)

    def _read_request(self) -> tuple[ResponsesAgentRequest, RequestOptions]:
        body = self._body if self.conversation is None else self.conversation.request_body()
        if isinstance(self._served.agent, ResponsesAdapter):
            return read_request(body)
        return agent_request(body)

    def _events(self, request: ResponsesAgentRequest, options: RequestOptions) -> Generator[Event, None, None]:
        """Return the agent's events.

        Raises:
            Exception: the request is refused.
        """
        agent = self._served.agent
        if isinstance(agent, ResponsesAdapter):
            parsed = agent.parse(request, options)
            if type(agent).predict_stream is ResponsesAdapter.predict_stream:  # not a subclass's own
                return _dumped(agent.stream(parsed))
        return _dumped(agent.predict_stream(request))

    def _translation(self, options: RequestOptions) -> Dialect:
        served, conversation = self._served, self.conversation
        return Dialect(
            self._dialect,
            served.tool_items,
            served.tools,
            served.name,
            {**options.echo, **(conversation.echo if conversation else {})},
            client_tools=options.offered,
            # The ids of other agents' responses may be easy to guess, or not be unique.
            own_ids=conversation is not None and not isinstance(served.agent, ResponsesAdapter),
        )

    @contextlib.contextmanager
    def _span(self, name: str, request: ResponsesAgentRequest) -> Iterator[LiveSpan]:
        with mlflow.start_span(name) as span:
            span.set_inputs(request)
            span.set_attribute(SpanAttributeKey.MESSAGE_FORMAT, "openai")
            if span.trace_id != NO_OP_SPAN_TRACE_ID:
                mlflow.update_current_trace(
                    client_request_id=self._headers[HEADER], tags={SERVED_BY: self._served.name}
                )
            yield span

    @property
    def _returns_trace_id(self) -> bool:
        return self._headers.get(_RETURN_TRACE_ID, "").lower() == "true" or returns_trace_id(self._body)


def _dumped(stream: Iterable[Any]) -> Generator[Event, None, None]:
    """The events as dicts; an exception of an agent that isn't a ``ResponsesAdapter`` as an ``error`` event."""
    with contextlib.ExitStack() as cleanup:
        if hasattr(stream, "close"):
            cleanup.callback(stream.close)
        try:
            yield from map(dump_event, stream)
        except Exception as error:
            yield error_event(_failure(error))


def dump_event(event: Any) -> Event:
    """Return an event of an agent as a dict."""
    dumped: Event = event if isinstance(event, dict) else event.model_dump()
    if dumped.get("custom_outputs", dumped) is None:
        return {name: value for name, value in dumped.items() if name != "custom_outputs"}
    return dumped


def _dump(response: Any) -> dict[str, Any]:
    dumped: dict[str, Any] = response if isinstance(response, dict) else response.model_dump(exclude_none=True)
    return dumped


def _failure(error: BaseException) -> AgentError:
    failure = to_client_error(error)
    if failure.code == "server_error" and not isinstance(error, AgentError):
        _log.error("The agent failed.", exc_info=error)
    else:
        _log.warning("%s: %s", failure.code, visible(str(failure)))  # it may hold the client's text
    return failure
