"""The tools of an MCP server, synchronous to the agent, through the official SDK."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import dspy

from oneturn.config.tools import McpTools
from oneturn.control import report
from oneturn.databricks.credentials import Who, describing, workspace_client
from oneturn.elsewhere.event_loop import BackgroundLoop, background_loop
from oneturn.elsewhere.foreign import foreign_tool
from oneturn.elsewhere.mcp_results import told_result
from oneturn.elsewhere.mcp_session import McpSession, given_variable
from oneturn.errors import ConfigError, OneTurnError, ToolError
from oneturn.watching import listen

if TYPE_CHECKING:
    from mcp import Client
    from mcp.types import Tool

T = TypeVar("T")
_log = logging.getLogger(__name__)
_LISTING = 60.0  # seconds to wait for a server that is started


def mcp_tools(entry: McpTools) -> list[dspy.Tool]:
    """The tools that the configuration picks of a server; the server is asked what it has.

    Raises:
        ConfigError: the extra isn't installed, the server can't be reached, or it has no such tool.
    """
    server = McpServer(entry)
    found = {tool.name: tool for tool in server.listed()}
    wanted = list(found) if entry.tools is None else entry.tools
    if missing := [name for name in wanted if name not in found]:
        raise ConfigError(f"The MCP server {server.place} has no tool {missing[0]!r}; it has: {', '.join(found)}.")
    return [_tool(server, found[name], entry) for name in wanted]


class McpServer:
    """A server as threads call it; its session is this process's, or of a call where a user's credentials are sent."""

    def __init__(self, entry: McpTools):
        try:
            import mcp  # noqa: F401
        except ModuleNotFoundError:
            raise ConfigError('Tools of MCP servers need the extra: pip install "oneturn[mcp]"') from None
        self.entry = entry
        self.place = entry.command or entry.url
        self._lock = threading.Lock()
        self._kept: tuple[BackgroundLoop, McpSession, dict[str, str]] | None = None

    def listed(self) -> list[Tool]:
        """What tools it has.

        Raises:
            ConfigError: it can't be reached.
        """
        import asyncio

        try:
            who = None if self.entry.who is None else describing(self.entry.who)
            return self._run(lambda session: asyncio.wait_for(session.call(_list_tools), _LISTING), who)
        except OneTurnError:
            raise
        except Exception as error:  # whatever a transport raises
            _log.debug("The MCP server didn't answer.", exc_info=error)
            reason = type(_innermost(error)).__name__
            raise ConfigError(
                f"The MCP server {self.place} of the configuration can't be used ({reason}). Is it installed or "
                "running there, and may these credentials use it?"
            ) from error

    def call(self, name: str, args: dict[str, Any]) -> str:
        """What a tool gives; what it tells meanwhile is the run's progress."""

        def hear(told: tuple[str, float | None]) -> None:
            report(*told)

        return listen(lambda tell: self._called(name, args, tell), hear)

    def _called(self, name: str, args: dict[str, Any], tell: Callable[[Any], None]) -> str:
        from mcp import MCPError

        async def hear(progress: float, total: float | None, message: str | None) -> None:
            fraction = min(1.0, progress / total) if total else None
            tell((message or f"{progress:g}{f' of {total:g}' if total else ''}", fraction))

        async def ask(client: Client) -> str:
            return told_result(await client.call_tool(name, args, progress_callback=hear))

        try:
            return self._run(lambda session: session.call(ask), self.entry.who)
        except OneTurnError:
            raise
        except MCPError as error:
            if error.error.message == "Connection closed":
                raise ToolError("the tool's server ended in the middle of the call, which may have been made") from None
            raise ToolError(f"the server refused the call: {error.error.message}") from None
        except Exception as error:
            raise ToolError(f"the tool's server can't be reached ({type(_innermost(error)).__name__})") from error

    def _run(self, work: Callable[[McpSession], Coroutine[Any, Any, T]], who: Who | None) -> T:
        url, headers = self._address(who)
        loop = background_loop()
        if who == "user":  # never shared between users
            return loop.run(_once(lambda: McpSession(self.entry, url, headers), work))
        with self._lock:
            if self._kept is None or self._kept[0] is not loop:
                shared: dict[str, str] = {}
                self._kept = loop, loop.run(_made(lambda: McpSession(self.entry, url, shared))), shared
                loop.closing(self._kept[1].close)
            _, session, sent = self._kept
            sent.update(headers)
        return loop.run(work(session))

    def _address(self, who: Who | None) -> tuple[str | None, dict[str, str]]:
        headers = {name: given_variable(variable) for name, variable in self.entry.headers.items()}
        url = self.entry.url
        if url is None or who is None:
            return url, headers
        config = workspace_client(who).config
        whole = config.host.rstrip("/") + url if url.startswith("/") else url
        if urlsplit(whole).netloc != urlsplit(config.host).netloc:
            raise ConfigError(f"{url} isn't of the workspace {config.host}, and its credentials aren't sent elsewhere.")
        return whole, {**headers, **config.authenticate()}


def _tool(server: McpServer, found: Tool, entry: McpTools) -> dspy.Tool:
    name = found.name
    if entry.name is not None:
        name = entry.name if len(entry.tools or ()) == 1 else f"{entry.name}_{name}"
    description = entry.description or found.description or found.title or ""
    return foreign_tool(lambda args: server.call(found.name, args), name, description, found.input_schema, entry)


async def _list_tools(client: Client) -> list[Tool]:
    tools, cursor = [], None
    while True:
        page = await client.list_tools(cursor=cursor)
        tools += page.tools
        if (cursor := page.next_cursor) is None:
            return tools


async def _made(make: Callable[[], T]) -> T:
    return make()


async def _once(make: Callable[[], McpSession], work: Callable[[McpSession], Coroutine[Any, Any, T]]) -> T:
    session = make()
    try:
        return await work(session)
    finally:
        await session.close()


def _innermost(error: BaseException) -> BaseException:
    """What went wrong, out of the groups that task groups raise."""
    while inner := getattr(error, "exceptions", None):
        error = inner[0]
    return error
