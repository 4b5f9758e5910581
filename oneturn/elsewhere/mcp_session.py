"""A session with an MCP server: opened when it is first needed, kept, opened anew when it has died."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, TypeVar

from oneturn.config.tools import McpTools
from oneturn.errors import ConfigError

if TYPE_CHECKING:
    import httpx2
    from mcp import Client

T = TypeVar("T")
_log = logging.getLogger(__name__)


class McpSession:
    """One client of one server; everything here runs in the background loop.

    Args:
        entry: which server.
        url: its whole address, if it has one.
        headers: sent with each request; a mapping whose values may change between calls.
    """

    def __init__(self, entry: McpTools, url: str | None, headers: Mapping[str, str]):
        self._entry, self._url, self._headers = entry, url, headers
        self._client: Client | None = None
        self._task: asyncio.Task[None] | None = None
        self._end = asyncio.Event()
        self._opening = asyncio.Lock()

    async def call(self, work: Callable[[Client], Awaitable[T]]) -> T:
        """What ``work`` gives; it is begun again only where the server can't have seen it."""
        from mcp import MCPError

        client = await self._opened()
        try:
            return await work(client)
        except MCPError as error:
            if error.error.message != "Session terminated":  # the HTTP server has forgotten it, and did nothing
                raise
            await self.close()
            return await work(await self._opened())

    async def close(self) -> None:
        """End the session; the next call opens another one."""
        task, self._task, self._client = self._task, None, None
        if task is not None:
            self._end.set()
            await asyncio.wait([task], timeout=5)
            task.cancel()

    async def _opened(self) -> Client:
        async with self._opening:
            if self._client is not None and not await self._alive(self._client):
                await self.close()
            if self._client is None:
                self._end = asyncio.Event()
                ready: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
                self._task = asyncio.create_task(self._hold(ready, self._end))
                self._client = await ready
            return self._client

    async def _alive(self, client: Client) -> bool:
        """Whether a started program still answers: what is sent to one that has ended is lost."""
        if self._task is None or self._task.done():
            return False
        if self._url is not None:  # each request finds out for itself
            return True
        try:
            await asyncio.wait_for(client.list_tools(cache_mode="refresh"), 10)
        except Exception as error:
            _log.warning("The MCP server %r has ended (%s): it is started anew.", self._entry.command, error)
            return False
        return True

    async def _hold(self, ready: asyncio.Future[Client], end: asyncio.Event) -> None:
        """Open the client, and close it in the same task, as its cancel scopes need it."""
        from mcp import Client

        try:
            async with AsyncExitStack() as stack:
                transport = await self._transport(stack)
                client = await stack.enter_async_context(Client(transport, cache=None))
                ready.set_result(client)
                await end.wait()
        except BaseException as error:
            if not ready.done():
                ready.set_exception(error)
            elif not isinstance(error, asyncio.CancelledError):
                _log.warning("An MCP session ended: %s", type(error).__name__)

    async def _transport(self, stack: AsyncExitStack) -> Any:
        from mcp import StdioServerParameters
        from mcp.client.streamable_http import streamable_http_client
        from mcp.shared._httpx_utils import create_mcp_http_client

        if self._url is None:
            env = {name: given_variable(name) for name in self._entry.env}
            return StdioServerParameters(command=str(self._entry.command), args=self._entry.args, env=env)
        http = create_mcp_http_client()
        http.event_hooks["request"].append(self._sign)
        return streamable_http_client(self._url, http_client=await stack.enter_async_context(http))

    async def _sign(self, request: httpx2.Request) -> None:
        request.headers.update(self._headers)


def given_variable(name: str) -> str:
    """The value of an environment variable.

    Raises:
        ConfigError: it isn't set.
    """
    if (value := os.environ.get(name)) is None:
        raise ConfigError(f"The environment variable {name} isn't set; an MCP server of the configuration needs it.")
    return value
