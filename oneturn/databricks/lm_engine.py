"""A serving endpoint as a DSPy engine: DSPy's own extension point for an LM that owns its connection.

It holds names and numbers only, so that an LM can be built, copied, pickled and saved without a workspace. Credentials
are asked for at each call; the reply's schema is what an endpoint may refuse.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, closing
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, TypeVar

# Not re-exported by dspy.lm15; with them, a timeout is the LM's own and connections are kept.
from dspy._vendor.lm15.transports import StdlibAsyncTransport, StdlibTransport
from dspy._vendor.lm15.types import StreamEvent
from dspy.lm15 import LM15Error, Request, Response

from oneturn.databricks.credentials import Who
from oneturn.databricks.lm_asking import Asked, again, asked, told
from oneturn.databricks.lm_client import CHAT, AsyncEndpointClient, EndpointClient

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
        first = asked(self.endpoint, self.credentials, request)
        try:
            return ask(self._client(first), first.request)
        except LM15Error as error:
            second = again(first, self.credentials, request, error)
        try:
            return ask(self._client(second), second.request)
        except LM15Error as error:
            raise told(second, error) from error

    def _client(self, at: Asked) -> EndpointClient:
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
        first = await asyncio.to_thread(asked, self.engine.endpoint, self.engine.credentials, request)
        async with self._transport() as transport:
            try:
                return await self._client(first, transport).complete(first.request)
            except LM15Error as error:
                second = await asyncio.to_thread(again, first, self.engine.credentials, request, error)
            try:
                return await self._client(second, transport).complete(second.request)
            except LM15Error as error:
                raise told(second, error) from error

    async def stream(self, request: Request) -> AsyncIterator[StreamEvent]:
        """Answer one request piece by piece."""
        at = await asyncio.to_thread(asked, self.engine.endpoint, self.engine.credentials, request)
        async with self._transport() as transport:
            events = self._client(at, transport).stream(at.request)
            try:
                first = await anext(events)
            except LM15Error as error:
                at = await asyncio.to_thread(again, at, self.engine.credentials, request, error)
                events = self._client(at, transport).stream(at.request)
                try:
                    first = await anext(events)
                except LM15Error as refusal:
                    raise told(at, refusal) from refusal
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

    def _client(self, at: Asked, transport: StdlibAsyncTransport) -> AsyncEndpointClient:
        return AsyncEndpointClient(api_key=at.token, base_url=at.url, compat=CHAT, transport=transport)


@lru_cache(maxsize=8)
def _transport(timeout: float) -> StdlibTransport:
    """One pool of connections a process and timeout; they are no engine's, so that engines stay plain settings."""
    return StdlibTransport(connect_timeout=_CONNECT, read_timeout=timeout)
