"""The embedded server as a DSPy engine: DSPy's own extension point for an LM that owns its connection.

An engine rather than a registered provider, because a provider needs its address when the LM is made, and this address
exists only once the server runs. An engine holds settings and nothing else until its first call, so an LM can be built,
copied, pickled and saved without starting anything. It declares that it honours a response schema, which makes
``dspy.JSONAdapter`` send one; litellm is never imported.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

# Not re-exported by dspy.lm15. The transports are needed for trust_env=False: the default one sends even loopback
# requests through HTTP_PROXY, and a prompt must not leave the machine.
from dspy._vendor.lm15.transports import StdlibAsyncTransport, StdlibTransport
from dspy._vendor.lm15.types import StreamEvent
from dspy.lm15 import (
    AsyncOpenAIChatLM,
    ContextLengthError,
    InvalidRequestError,
    OpenAIChatCompat,
    OpenAIChatLM,
    Request,
    Response,
)

from oneturn.lm.local.server import RunningServer, ServerSettings, running_server
from oneturn.lm.local.weights import fetch_weights

# What llama.cpp's chat endpoint reads where OpenAI's own has newer names.
_LLAMA_CPP = OpenAIChatCompat(instruction_role="system", max_tokens_field="max_tokens")
_OVERFLOW = re.compile(r"request \((\d+) tokens\) exceeds the available context size \((\d+) tokens\)")


@dataclass(frozen=True)
class LocalEngine:
    """A DSPy engine over the embedded server: one request, one answer, no retries.

    Copies and unpickled engines share the process's one server, because it is found by its settings.
    """

    size: str
    weights: str | None = None
    settings: ServerSettings = field(default_factory=ServerSettings)
    timeout: float = 300.0

    supports_response_schema = True
    # Native tools don't work with these models on llama.cpp; a schema does.
    supports_function_calling = False
    supports_reasoning = False
    supported_params = frozenset(
        {"temperature", "max_tokens", "top_p", "stop", "seed", "stream", "response_format", "logprobs", "top_logprobs"}
    )

    def complete(self, request: Request) -> Response:
        """Answer one request. Raises lm15 errors; ``ContextLengthError`` if the prompt doesn't fit in a slot."""
        with self._client() as client:
            return client.complete(request)

    def stream(self, request: Request) -> Iterator[StreamEvent]:
        """Answer one request piece by piece; closing the iterator stops the generation."""
        with self._client() as client:
            yield from client.stream(request)

    def close(self) -> None:
        """Nothing to do: the server belongs to the process, not to this engine."""

    def dump_state(self) -> dict[str, Any]:
        """Settings only, as JSON."""
        return asdict(self)

    @classmethod
    def load_state(cls, state: dict[str, Any]) -> LocalEngine:
        """The engine that ``dump_state`` described."""
        return cls(**{**state, "settings": ServerSettings(**state["settings"])})

    def server(self) -> RunningServer:
        """This process's server for these settings; fetches the weights and starts it if need be."""
        return running_server(fetch_weights(self.size, self.weights), self.settings)

    @contextmanager
    def _client(self) -> Iterator[OpenAIChatLM]:
        # A connection a request: llama.cpp closes kept ones when it likes (after a stream, after 5 s), and a request
        # sent in that moment is lost. Opening one on loopback takes less than a millisecond.
        server = self.server()
        with StdlibTransport(read_timeout=self.timeout, trust_env=False) as transport, _overflow_by_name():
            yield OpenAIChatLM(api_key=server.key, base_url=f"{server.url}/v1", compat=_LLAMA_CPP, transport=transport)


@dataclass(frozen=True)
class AsyncLocalEngine:
    """The same server for ``acall``."""

    engine: LocalEngine

    async def complete(self, request: Request) -> Response:
        """Answer one request; cancelling it stops the generation."""
        async with self._client() as client:
            return await client.complete(request)

    async def stream(self, request: Request) -> AsyncIterator[StreamEvent]:
        """Answer one request piece by piece."""
        async with self._client() as client:
            async for event in client.stream(request):
                yield event

    async def aclose(self) -> None:
        """Nothing to do: the server belongs to the process, not to this engine."""

    def dump_state(self) -> dict[str, Any]:
        """Settings only, as JSON."""
        return self.engine.dump_state()

    @classmethod
    def load_state(cls, state: dict[str, Any]) -> AsyncLocalEngine:
        """The engine that ``dump_state`` described."""
        return cls(LocalEngine.load_state(state))

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[AsyncOpenAIChatLM]:
        server = await asyncio.to_thread(self.engine.server)
        transport = StdlibAsyncTransport(read_timeout=self.engine.timeout, trust_env=False)
        try:
            with _overflow_by_name():
                yield AsyncOpenAIChatLM(
                    api_key=server.key, base_url=f"{server.url}/v1", compat=_LLAMA_CPP, transport=transport
                )
        finally:
            await transport.aclose()


@contextmanager
def _overflow_by_name() -> Iterator[None]:
    """Turn llama.cpp's HTTP 400 for a prompt that doesn't fit into the error that DSPy knows it by."""
    try:
        yield
    except InvalidRequestError as error:
        if not (found := _OVERFLOW.search(str(error))):
            raise
        raise ContextLengthError(
            f"The prompt has {found[1]} tokens and the embedded LM's context holds {found[2]}: "
            "shorten it, or build the LM with local_lm(context=...).",
            status=error.status,
        ) from error
