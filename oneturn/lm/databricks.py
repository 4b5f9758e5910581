"""``databricks_lm``: a serving endpoint of the workspace as a ``dspy.LM``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, closing
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import Any, TypeVar

import dspy
from dspy.lm15 import (
    AsyncOpenAIChatLM,
    AuthError,
    ContinuationDelta,
    LM15Error,
    NotConfiguredError,
    OpenAIChatCompat,
    Request,
    Response,
    StreamDeltaEvent,
    TransportError,
)

from oneturn.core._dspy import StreamEvent
from oneturn.core._dspy_client import ChatClient, StdlibAsyncTransport, parse_with
from oneturn.core.databricks_auth import Who, first_line, workspace_token
from oneturn.errors import ConfigError
from oneturn.lm._databricks_messages import (
    flatten,
    has_parts,
    state_deltas,
    states_of,
    with_signed_reasoning,
    with_states,
)
from oneturn.lm.format_fallback import asend_with_fallback, send_with_fallback
from oneturn.lm.transport import InterruptibleTransport


@dataclass(frozen=True)
class PreparedRequest:
    """A request with its workspace host and token."""

    host: str
    token: str = field(repr=False)
    request: Request

    @property
    def url(self) -> str:
        """Return the base URL of the workspace's endpoints for OpenAI's client."""
        return f"{self.host}/serving-endpoints"


def prepare_request(endpoint: str, credentials: Who, request: Request, renew: bool = False) -> PreparedRequest:
    """Return ``request`` with current credentials.

    Args:
        endpoint: the serving endpoint's name.
        credentials: the agent's or the user's.
        request: the request to send.
        renew: fetch a new token even if the current one hasn't expired.

    Raises:
        NotConfiguredError: no credentials are configured.
        TransportError: the workspace that issues the token can't be reached.
    """
    try:
        host, token = workspace_token(credentials, renew)
    except (ConfigError, ValueError) as error:
        raise NotConfiguredError(
            f"There are no credentials for {endpoint!r}: {first_line(error).rstrip('.')}. Set DATABRICKS_HOST and "
            "DATABRICKS_TOKEN, or those of a service principal or profile."
        ) from error
    except OSError as error:
        raise TransportError(f"The workspace of {endpoint!r} can't be reached: {error}") from error
    return PreparedRequest(host, token, replace(request, model=endpoint))


def prepare_retry(previous: PreparedRequest, credentials: Who, request: Request, error: LM15Error) -> PreparedRequest:
    """Return the request to send after ``error``, with a renewed token.

    Raises:
        LM15Error: a new token wouldn't help; this is ``error``, with the endpoint's name and a fix.
    """
    endpoint = previous.request.model
    if isinstance(error, AuthError) and credentials == "agent":
        renewed = prepare_request(endpoint, credentials, request, renew=True)
        if renewed.token != previous.token:
            return renewed
    raise explain_error(previous, error)


def explain_error(prepared: PreparedRequest, error: LM15Error) -> LM15Error:
    """Return ``error`` with the endpoint's name and a fix in its message."""
    host, endpoint = prepared.host, prepared.request.model
    if error.status == 404:
        message = f"{host} has no serving endpoint {endpoint!r}, or none for these credentials: {error.message}"
        return NotConfiguredError(f"{message} Run `oneturn doctor` to list the available endpoints.", status=404)
    if isinstance(error, AuthError):
        error.message = (
            f"{host} rejects these credentials for {endpoint!r}: {error.message} "
            "Querying the endpoint requires the permission CAN QUERY on it."
        )
        error.args = (error.message,)
    return error


CHAT = OpenAIChatCompat(instruction_role="system", max_tokens_field="max_tokens", thinking_replay="omit")


class EndpointClient(ChatClient):
    """A synchronous chat client of an endpoint."""

    def parse_response(self, request: Request, response: Any) -> Response:
        """Return the response, with the reasoning of a thinking model and its signatures."""
        if not has_parts(response.body.decode(errors="replace")):
            return super().parse_response(request, response)
        body = response.json()
        messages = [choice.get("message") for choice in body.get("choices") or []]
        states = [states_of(message) for message in messages]
        for message in messages:
            flatten(message)
        parsed = super().parse_response(request, replace(response, body=json.dumps(body).encode()))
        return with_states(parsed, states[0]) if states and states[0] else parsed

    def parse_stream_events(self, request: Request, raw_event: Any) -> Iterator[StreamEvent]:
        """Yield the events of a chunk, with the text and the reasoning of a thinking model and its signatures."""
        states: list[ContinuationDelta] = []
        if has_parts(raw_event.data):
            chunk = json.loads(raw_event.data)
            for choice in chunk.get("choices") or []:
                states += state_deltas(choice.get("delta"))
                flatten(choice.get("delta"))
            raw_event = replace(raw_event, data=json.dumps(chunk))
        yield from super().parse_stream_events(request, raw_event)
        yield from (StreamDeltaEvent(delta=state) for state in states)

    def change_messages(self, messages: list[dict[str, Any]], request: Request) -> list[dict[str, Any]]:
        """Return the messages, with the signed reasoning that the endpoint wants back."""
        return with_signed_reasoning(messages, request.messages)


class AsyncEndpointClient(AsyncOpenAIChatLM):
    """An asynchronous chat client of an endpoint."""

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_with(self, EndpointClient)


_CONNECT = 10.0
T = TypeVar("T")


@dataclass(frozen=True)
class EndpointEngine:
    """A DSPy engine for one endpoint: one request, one response."""

    endpoint: str
    credentials: Who = "agent"
    timeout: float = 120.0

    supports_response_schema = True
    supports_function_calling = True
    supports_reasoning = False
    supported_params = frozenset(
        {"temperature", "max_tokens", "top_p", "stop", "stream", "response_format", "tools", "tool_choice"}
    )

    def complete(self, request: Request) -> Response:
        """Return the response to ``request``; a refused response format is weakened. Raises lm15 errors."""
        return send_with_fallback(self.endpoint, request, self.complete_unchanged)

    def stream(self, request: Request) -> Iterator[StreamEvent]:
        """Stream the response to ``request``. Closing the iterator closes the connection."""
        first, events = send_with_fallback(self.endpoint, request, self.start_unchanged)
        with closing(events):
            yield first
            yield from events

    @property
    def as_is(self) -> UnchangedRequests:
        """The same endpoint, which gets each request unchanged: for a caller with fallbacks of its own."""
        return UnchangedRequests(self)

    def complete_unchanged(self, request: Request) -> Response:
        """Return the response to ``request`` as it is. Raises lm15 errors."""
        return self._send_with_retry(request, lambda client, prepared: client.complete(prepared))

    def start_unchanged(self, request: Request) -> tuple[StreamEvent, Any]:
        """Start to stream the response to ``request`` as it is: the first event, and the others."""

        def start(client: EndpointClient, prepared: Request) -> tuple[StreamEvent, Any]:
            events = client.stream(prepared)
            return next(events), events  # an HTTP error is raised here, before any event

        return self._send_with_retry(request, start)

    def _send_with_retry(self, request: Request, send: Callable[[EndpointClient, Request], T]) -> T:
        first = prepare_request(self.endpoint, self.credentials, request)
        try:
            return send(self._client(first), first.request)
        except LM15Error as error:
            second = prepare_retry(first, self.credentials, request, error)
        try:
            return send(self._client(second), second.request)
        except LM15Error as error:
            raise explain_error(second, error) from error

    def _client(self, prepared: PreparedRequest) -> EndpointClient:
        transport = _transport(self.timeout)
        return EndpointClient(api_key=prepared.token, base_url=prepared.url, compat=CHAT, transport=transport)

    def close(self) -> None:
        """Do nothing: the process owns the connections, not this engine."""

    def dump_state(self) -> dict[str, Any]:
        """Return the engine's settings as a JSON-serializable dict."""
        return asdict(self)

    @classmethod
    def load_state(cls, state: dict[str, Any]) -> EndpointEngine:
        """Return the engine for a state from ``dump_state``."""
        return cls(**state)


@dataclass(frozen=True)
class UnchangedRequests:
    """An endpoint that gets each request unchanged."""

    engine: EndpointEngine

    def complete(self, request: Request) -> Response:
        """Return the response to ``request``. Raises lm15 errors."""
        return self.engine.complete_unchanged(request)

    def stream(self, request: Request) -> Iterator[StreamEvent]:
        """Stream the response to ``request``. Closing the iterator closes the connection."""
        first, events = self.engine.start_unchanged(request)
        with closing(events):
            yield first
            yield from events


@dataclass(frozen=True)
class AsyncEndpointEngine:
    """The asynchronous engine for ``acall``, over the same endpoint."""

    engine: EndpointEngine

    async def complete(self, request: Request) -> Response:
        """Return the response to ``request``; a refused response format is weakened. Raises lm15 errors."""
        return await asend_with_fallback(self.engine.endpoint, request, self._complete)

    async def _complete(self, request: Request) -> Response:
        first = await asyncio.to_thread(prepare_request, self.engine.endpoint, self.engine.credentials, request)
        async with self._transport() as transport:
            try:
                return await self._client(first, transport).complete(first.request)
            except LM15Error as error:
                second = await asyncio.to_thread(prepare_retry, first, self.engine.credentials, request, error)
            try:
                return await self._client(second, transport).complete(second.request)
            except LM15Error as error:
                raise explain_error(second, error) from error

    async def stream(self, request: Request) -> AsyncIterator[StreamEvent]:
        """Stream the response to ``request``."""
        prepared = await asyncio.to_thread(prepare_request, self.engine.endpoint, self.engine.credentials, request)
        async with self._transport() as transport:
            events = self._client(prepared, transport).stream(prepared.request)
            try:
                first = await anext(events)
            except LM15Error as error:
                prepared = await asyncio.to_thread(prepare_retry, prepared, self.engine.credentials, request, error)
                events = self._client(prepared, transport).stream(prepared.request)
                try:
                    first = await anext(events)
                except LM15Error as second_error:
                    raise explain_error(prepared, second_error) from second_error
            async with aclosing(events):
                yield first
                async for event in events:
                    yield event

    async def aclose(self) -> None:
        """Do nothing: each call closes its own connection."""

    def dump_state(self) -> dict[str, Any]:
        """Return the engine's settings as a JSON-serializable dict."""
        return self.engine.dump_state()

    @classmethod
    def load_state(cls, state: dict[str, Any]) -> AsyncEndpointEngine:
        """Return the engine for a state from ``dump_state``."""
        return cls(EndpointEngine.load_state(state))

    @asynccontextmanager
    async def _transport(self) -> AsyncIterator[StdlibAsyncTransport]:
        transport = StdlibAsyncTransport(connect_timeout=_CONNECT, read_timeout=self.engine.timeout)
        try:
            yield transport
        finally:
            await transport.aclose()

    def _client(self, prepared: PreparedRequest, transport: StdlibAsyncTransport) -> AsyncEndpointClient:
        return AsyncEndpointClient(api_key=prepared.token, base_url=prepared.url, compat=CHAT, transport=transport)


@lru_cache(maxsize=8)
def _transport(timeout: float) -> InterruptibleTransport:
    """Return the process's connection pool for ``timeout``. Engines don't own it, so they hold settings only.

    With a transport of its own, the LM has its own timeout and keeps connections open.
    """
    return InterruptibleTransport(connect_timeout=_CONNECT, read_timeout=timeout)


PREFIX = "databricks/"


def databricks_lm(
    model: str, *, credentials: Who = "agent", timeout: float = 120.0, cache: bool = True, **options: Any
) -> dspy.LM:
    """Return a ``databricks_dspy.DatabricksLM`` that sends no request before its first call.

    ``lm()``, ``acall`` and streaming use the same credentials, resolved at each call; an expired token is renewed. No
    token is stored in the LM, in its saved state or in the key of DSPy's cache.

    Args:
        model: ``databricks/<the name of a serving endpoint>``, of the chat task.
        credentials: ``"agent"`` for the agent's own, ``"user"`` for those of the user who sent the request.
        timeout: seconds to wait for the next byte of a response.
        cache: let DSPy answer a repeated request from its cache, which all users share.
        **options: further arguments of ``dspy.LM``.

    Raises:
        ConfigError: the extra isn't installed, or a user's answers would be cached for other users.
    """
    if credentials == "user" and cache:
        raise ConfigError("With lm.credentials: user, set lm.cache: false; the cache is shared by all users.")
    engine = EndpointEngine(model.removeprefix(PREFIX), credentials, timeout)
    lm: dspy.LM = _class()(model, engine=engine, async_engine=AsyncEndpointEngine(engine), cache=cache, **options)
    return lm


def _class() -> type[dspy.LM]:
    try:
        import databricks_dspy  # noqa: F401 (EndpointLM subclasses its LM)
    except ModuleNotFoundError:
        raise ConfigError('databricks/… needs the extra: pip install "oneturn[databricks]"') from None
    from oneturn.lm._databricks_class import EndpointLM

    return EndpointLM
