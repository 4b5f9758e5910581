"""``databricks_lm``: an LM behind a serving endpoint of the workspace, as DSPy asks it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, closing
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import Any, TypeVar

import dspy
from dspy._vendor.lm15.errors import ProviderError
from dspy._vendor.lm15.transports import StdlibAsyncTransport, StdlibTransport
from dspy._vendor.lm15.types import StreamEvent
from dspy.lm15 import (
    AsyncOpenAIChatLM,
    AuthError,
    InvalidRequestError,
    LM15Error,
    NotConfiguredError,
    OpenAIChatCompat,
    OpenAIChatLM,
    Request,
    Response,
    TransportError,
)

from oneturn.core.databricks_auth import Who, workspace_token
from oneturn.errors import ConfigError

_ABOUT_SCHEMA = re.compile(r"response_format|json_?schema|structured output|anyOf|oneOf|allOf|\$ref|prefixItems", re.I)

_schemaless: set[tuple[str, str]] = set()
"""Endpoints, by workspace and name, that have refused a schema: this process offers them none again."""


@dataclass(frozen=True)
class PreparedRequest:
    """Where a request goes, with what token, and what is sent."""

    host: str
    token: str = field(repr=False)
    request: Request

    @property
    def url(self) -> str:
        """The address of the workspace's endpoints, as OpenAI's client takes it."""
        return f"{self.host}/serving-endpoints"


def prepare_request(endpoint: str, credentials: Who, request: Request, renew: bool = False) -> PreparedRequest:
    """The request with the credentials of the moment.

    Raises:
        NotConfiguredError: there are none.
        TransportError: the workspace that issues them can't be reached.
    """
    try:
        host, token = workspace_token(credentials, renew)
    except (ConfigError, ValueError) as error:
        said = str(error).partition(" Config: ")[0]
        raise NotConfiguredError(f"There are no credentials for {endpoint!r}: {said}") from error
    except OSError as error:
        raise TransportError(f"The workspace of {endpoint!r} can't be reached: {error}") from error
    return PreparedRequest(host, token, _shaped(request, endpoint, (host, endpoint) not in _schemaless))


def prepare_retry(before: PreparedRequest, credentials: Who, request: Request, error: LM15Error) -> PreparedRequest:
    """What to ask after a refusal: with a renewed token, or without a schema. Raises it where neither helps."""
    endpoint = before.request.model
    if isinstance(error, AuthError) and credentials == "agent":
        renewed = prepare_request(endpoint, credentials, request, renew=True)
        if renewed.token != before.token:
            return renewed
    if isinstance(error, InvalidRequestError) and _refuses_schema(before.request, error):
        _schemaless.add((before.host, endpoint))
        return replace(before, request=_shaped(request, endpoint, False))
    raise explain_refusal(before, error)


def explain_refusal(at: PreparedRequest, error: LM15Error) -> LM15Error:
    """A refusal, with the endpoint's name and what to do."""
    if error.status == 404:
        said = f"{at.host} has no serving endpoint {at.request.model!r}, or none for these credentials: {error.message}"
        return NotConfiguredError(f"{said} `oneturn doctor` names those that there are.", status=404)
    if isinstance(error, AuthError):
        error.message = (
            f"{at.host} doesn't let {at.request.model!r} be asked with these credentials: {error.message} "
            "The permission that it takes is CAN QUERY on the endpoint."
        )
        error.args = (error.message,)
    return error


def _shaped(request: Request, endpoint: str, schema: bool) -> Request:
    format_ = request.config.response_format
    if format_ is not None and not schema:
        return replace(request, model=endpoint, config=replace(request.config, response_format=None))
    return replace(request, model=endpoint)


def _refuses_schema(sent: Request, error: LM15Error) -> bool:
    return sent.config.response_format is not None and bool(_ABOUT_SCHEMA.search(error.message))


CHAT = OpenAIChatCompat(instruction_role="system", max_tokens_field="max_tokens")

_TOO_LONG = re.compile(r"context.?(?:length|window)|(?:prompt|input)\b.*\btoo long|maximum.*tokens", re.I)


class EndpointClient(OpenAIChatLM):
    """Asks an endpoint at once."""

    def normalize_error(self, status: int, body: str) -> ProviderError:
        """The refusal as lm15 names it."""
        return super().normalize_error(status, _as_openai(status, body))


class AsyncEndpointClient(AsyncOpenAIChatLM):
    """Asks an endpoint from an event loop."""

    def __post_init__(self) -> None:
        super().__post_init__()
        inner: Any = self._inner  # type: ignore[has-type]  # it reads answers and refusals
        self._inner = EndpointClient(
            api_key=self.api_key, transport=inner.transport, base_url=self.base_url, compat=self.compat
        )


def _as_openai(status: int, body: str) -> str:
    """``{"error_code": …, "message": …}`` in OpenAI's envelope; anything else as it is."""
    try:
        told = json.loads(body)
    except ValueError:
        return body
    if not isinstance(told, dict) or not isinstance(told.get("message"), str) or "error" in told:
        return body
    message = told["message"]
    too_long = status == 400 and _TOO_LONG.search(message)
    code = "context_length_exceeded" if too_long else told.get("error_code")
    return json.dumps({"error": {"message": message, "code": code}})


# Not re-exported by dspy.lm15; with them, a timeout is the LM's own and connections are kept.


_CONNECT = 10.0
T = TypeVar("T")


@dataclass(frozen=True)
class EndpointEngine:
    """Asks one endpoint: one request, one answer."""

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
        """Answer one request. Raises lm15 errors."""
        return self._tried(request, lambda client, sent: client.complete(sent))

    def stream(self, request: Request) -> Iterator[StreamEvent]:
        """Answer one request piece by piece; closing the iterator ends it."""

        def begin(client: EndpointClient, sent: Request) -> tuple[StreamEvent, Any]:
            events = client.stream(sent)
            return next(events), events  # what the endpoint refuses, it refuses here

        first, events = self._tried(request, begin)
        with closing(events):
            yield first
            yield from events

    def _tried(self, request: Request, ask: Callable[[EndpointClient, Request], T]) -> T:
        first = prepare_request(self.endpoint, self.credentials, request)
        try:
            return ask(self._client(first), first.request)
        except LM15Error as error:
            second = prepare_retry(first, self.credentials, request, error)
        try:
            return ask(self._client(second), second.request)
        except LM15Error as error:
            raise explain_refusal(second, error) from error

    def _client(self, at: PreparedRequest) -> EndpointClient:
        return EndpointClient(api_key=at.token, base_url=at.url, compat=CHAT, transport=_transport(self.timeout))

    def close(self) -> None:
        """Nothing to do: connections belong to the process, not to this engine."""

    def dump_state(self) -> dict[str, Any]:
        """Settings only, as JSON."""
        return asdict(self)

    @classmethod
    def load_state(cls, state: dict[str, Any]) -> EndpointEngine:
        """The engine that ``dump_state`` described."""
        return cls(**state)


@dataclass(frozen=True)
class AsyncEndpointEngine:
    """The same endpoint for ``acall``."""

    engine: EndpointEngine

    async def complete(self, request: Request) -> Response:
        """Answer one request."""
        first = await asyncio.to_thread(prepare_request, self.engine.endpoint, self.engine.credentials, request)
        async with self._transport() as transport:
            try:
                return await self._client(first, transport).complete(first.request)
            except LM15Error as error:
                second = await asyncio.to_thread(prepare_retry, first, self.engine.credentials, request, error)
            try:
                return await self._client(second, transport).complete(second.request)
            except LM15Error as error:
                raise explain_refusal(second, error) from error

    async def stream(self, request: Request) -> AsyncIterator[StreamEvent]:
        """Answer one request piece by piece."""
        at = await asyncio.to_thread(prepare_request, self.engine.endpoint, self.engine.credentials, request)
        async with self._transport() as transport:
            events = self._client(at, transport).stream(at.request)
            try:
                first = await anext(events)
            except LM15Error as error:
                at = await asyncio.to_thread(prepare_retry, at, self.engine.credentials, request, error)
                events = self._client(at, transport).stream(at.request)
                try:
                    first = await anext(events)
                except LM15Error as refusal:
                    raise explain_refusal(at, refusal) from refusal
            async with aclosing(events):
                yield first
                async for event in events:
                    yield event

    async def aclose(self) -> None:
        """Nothing to do: each call has closed its connection."""

    def dump_state(self) -> dict[str, Any]:
        """Settings only, as JSON."""
        return self.engine.dump_state()

    @classmethod
    def load_state(cls, state: dict[str, Any]) -> AsyncEndpointEngine:
        """The engine that ``dump_state`` described."""
        return cls(EndpointEngine.load_state(state))

    @asynccontextmanager
    async def _transport(self) -> AsyncIterator[StdlibAsyncTransport]:
        transport = StdlibAsyncTransport(connect_timeout=_CONNECT, read_timeout=self.engine.timeout)
        try:
            yield transport
        finally:
            await transport.aclose()

    def _client(self, at: PreparedRequest, transport: StdlibAsyncTransport) -> AsyncEndpointClient:
        return AsyncEndpointClient(api_key=at.token, base_url=at.url, compat=CHAT, transport=transport)


@lru_cache(maxsize=8)
def _transport(timeout: float) -> StdlibTransport:
    """One pool of connections a process and timeout; they are no engine's, so that engines stay plain settings."""
    return StdlibTransport(connect_timeout=_CONNECT, read_timeout=timeout)


PREFIX = "databricks/"


def databricks_lm(
    model: str, *, credentials: Who = "agent", timeout: float = 120.0, cache: bool = True, **options: Any
) -> dspy.LM:
    """Return a ``databricks_dspy.DatabricksLM`` that calls nothing before its first call.

    Every way to ask it (``lm()``, ``acall``, streaming) takes the same credentials, those of the moment: a token that
    has expired is renewed. None is kept in the LM, in what is saved of it, or in the key of DSPy's cache.

    Args:
        model: ``databricks/<the name of a serving endpoint>``, of the chat task.
        credentials: whose: the agent's own, or of the ``"user"`` who asks.
        timeout: seconds to wait for the next byte of an answer.
        cache: let DSPy answer a repeated request from its cache, whoever asks.
        **options: anything else ``dspy.LM`` takes.

    Raises:
        ConfigError: the extra isn't installed; or answers to one user would be kept for others.
    """
    if credentials == "user" and cache:
        raise ConfigError("With lm.credentials: user, set lm.cache: false: what one may read isn't for all.")
    engine = EndpointEngine(model.removeprefix(PREFIX), credentials, timeout)
    kept: dspy.LM = _class()(model, engine=engine, async_engine=AsyncEndpointEngine(engine), cache=cache, **options)
    return kept


def _class() -> type[dspy.LM]:
    try:
        import databricks_dspy  # noqa: F401 (the class below is its)
    except ModuleNotFoundError:
        raise ConfigError('databricks/… needs the extra: pip install "oneturn[databricks]"') from None
    from oneturn.lm._databricks_class import EndpointLM

    return EndpointLM
