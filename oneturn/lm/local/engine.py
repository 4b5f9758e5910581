"""The embedded server as a DSPy engine: DSPy's own extension point for an LM that owns its connection.

This is an engine rather than a registered provider, because a provider needs its address when the LM is built, and this
address exists only while the server runs. An engine holds settings only until its first call, so an LM can be built,
copied, pickled and saved without starting the server. It declares support for response schemas, so
``dspy.JSONAdapter`` sends one. litellm is never imported.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from dspy.lm15 import (
    AsyncOpenAIChatLM,
    ContextLengthError,
    InvalidRequestError,
    OpenAIChatCompat,
    OpenAIChatLM,
    Request,
    Response,
)

from oneturn.core._dspy import StreamEvent
from oneturn.core._dspy_client import StdlibAsyncTransport
from oneturn.lm.local.grammar import with_grammar
from oneturn.lm.local.server import RunningServer, ServerSettings, require_extra, running_server
from oneturn.lm.local.weights import fetch_weights
from oneturn.lm.transport import InterruptibleTransport

# llama.cpp's chat endpoint reads these older names of OpenAI's.
_LLAMA_CPP = OpenAIChatCompat(instruction_role="system", max_tokens_field="max_tokens")
_OVERFLOW = re.compile(r"request \((\d+) tokens\) exceeds the available context size \((\d+) tokens\)")


@dataclass(frozen=True)
class LocalEngine:
    """A DSPy engine over the embedded server: one request, one response, no retries.

    Copies and unpickled engines share the process's server, which is looked up by its settings.
    """

    size: str
    weights: str | None = None
    settings: ServerSettings = field(default_factory=ServerSettings)
    timeout: float = 300.0

    local_grammar = True  # a schema holds for each token, and a new one costs nothing
    free_text = True  # a schema may let the reply begin with free text: see oneturn.lm.free_text
    supports_response_schema = True
    # Native tool calls don't work with these models on llama.cpp; a response schema does.
    supports_function_calling = False
    supports_reasoning = False
    supported_params = frozenset(
        {"temperature", "max_tokens", "top_p", "stop", "seed", "stream", "response_format", "logprobs", "top_logprobs"}
    )

    def complete(self, request: Request) -> Response:
        """Return the response to ``request``. Raises lm15 errors; ``ContextLengthError`` if it is too long."""
        with self._client() as client:
            return client.complete(with_grammar(request))

    def stream(self, request: Request) -> Iterator[StreamEvent]:
        """Stream the response to ``request``. Closing the iterator stops the generation."""
        with self._client() as client:
            yield from client.stream(with_grammar(request))

    def close(self) -> None:
        """Do nothing: the process owns the server, not this engine."""

    def dump_state(self) -> dict[str, Any]:
        """Return the engine's settings as a JSON-serializable dict."""
        return asdict(self)

    @classmethod
    def load_state(cls, state: dict[str, Any]) -> LocalEngine:
        """Return the engine for a state from ``dump_state``."""
        return cls(**{**state, "settings": ServerSettings(**state["settings"])})

    def server(self) -> RunningServer:
        """Return this process's server for these settings; download the weights and start it if necessary."""
        require_extra()
        return running_server(fetch_weights(self.size, self.weights), self.settings)

    @contextmanager
    def _client(self) -> Iterator[OpenAIChatLM]:
        # One connection per request: llama.cpp closes idle connections (after a stream, after 5 s), and a request sent
        # at that moment is lost. Opening a loopback connection takes less than a millisecond. trust_env=False: the
        # default transport sends even loopback requests through HTTP_PROXY, and a prompt must not leave the machine.
        server = self.server()
        with InterruptibleTransport(read_timeout=self.timeout, trust_env=False) as transport, _convert_overflow():
            yield OpenAIChatLM(api_key=server.key, base_url=f"{server.url}/v1", compat=_LLAMA_CPP, transport=transport)


@dataclass(frozen=True)
class AsyncLocalEngine:
    """The asynchronous engine for ``acall``, over the same server."""

    engine: LocalEngine

    async def complete(self, request: Request) -> Response:
        """Return the response to ``request``. Cancellation stops the generation."""
        async with self._client() as client:
            return await client.complete(with_grammar(request))

    async def stream(self, request: Request) -> AsyncIterator[StreamEvent]:
        """Stream the response to ``request``."""
        async with self._client() as client:
            async for event in client.stream(with_grammar(request)):
                yield event

    async def aclose(self) -> None:
        """Do nothing: the process owns the server, not this engine."""

    def dump_state(self) -> dict[str, Any]:
        """Return the engine's settings as a JSON-serializable dict."""
        return self.engine.dump_state()

    @classmethod
    def load_state(cls, state: dict[str, Any]) -> AsyncLocalEngine:
        """Return the engine for a state from ``dump_state``."""
        return cls(LocalEngine.load_state(state))

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[AsyncOpenAIChatLM]:
        server = await asyncio.to_thread(self.engine.server)
        transport = StdlibAsyncTransport(read_timeout=self.engine.timeout, trust_env=False)
        try:
            with _convert_overflow():
                yield AsyncOpenAIChatLM(
                    api_key=server.key, base_url=f"{server.url}/v1", compat=_LLAMA_CPP, transport=transport
                )
        finally:
            await transport.aclose()


@contextmanager
def _convert_overflow() -> Iterator[None]:
    """Convert llama.cpp's HTTP 400 for a prompt that is too long to ``ContextLengthError``, which DSPy recognizes."""
    try:
        yield
    except InvalidRequestError as error:
        if not (match := _OVERFLOW.search(str(error))):
            raise
        raise ContextLengthError(
            f"The prompt has {match[1]} tokens and the embedded LM's context holds {match[2]}: "
            "shorten it, or build the LM with local_lm(context=...).",
            status=error.status,
        ) from error
