"""The tools of an MCP server, synchronous to the agent, through the official SDK."""

from __future__ import annotations

import asyncio
import atexit
import json
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import dspy

from oneturn.config.tools import McpTools
from oneturn.core.background import run_in_thread
from oneturn.core.databricks_auth import Who, describing, workspace_client
from oneturn.core.run_context import current_run, report
from oneturn.errors import ConfigError, OneTurnError, ToolError
from oneturn.toolsets.json_schema import foreign_tool

if TYPE_CHECKING:
    import httpx2
    from mcp import Client
    from mcp.types import CallToolResult, Tool


_TICK = 1.0  # seconds between two looks at the run's deadline


class BackgroundLoop:
    """An event loop in a daemon thread, started when it is first needed, ended with the process."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.loop = asyncio.new_event_loop()
        self._closers: list[Callable[[], Coroutine[Any, Any, None]]] = []
        threading.Thread(target=self.loop.run_forever, name="oneturn-event-loop", daemon=True).start()
        atexit.register(self.close)

    def closing(self, close: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run ``close`` in the loop when the process ends."""
        self._closers.append(close)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What ``work`` gives, run in the loop while this thread waits; cancelled there when the run has to stop.

        Raises:
            RunCancelled: the run has to stop.
        """
        control = current_run()
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            with control.waking(future.cancel):
                while True:
                    control.check()
                    left = control.remaining()
                    try:
                        return _waited(future, _TICK if left is None else min(left, _TICK))
                    except FutureTimeout:
                        if future.done():
                            return future.result()
                    except BaseException:
                        control.check()
                        raise
        finally:
            future.cancel()

    def close(self) -> None:
        """End what is open; waits a few seconds at most."""
        if self.pid != os.getpid():  # a fork: the thread, and what it held, are the parent's
            return
        for close in self._closers:
            _ended(asyncio.run_coroutine_threadsafe(close(), self.loop))
        self.loop.call_soon_threadsafe(self.loop.stop)


def background_loop() -> BackgroundLoop:
    """This process's loop."""
    global _loop
    with _lock:
        if _loop is None or _loop.pid != os.getpid():
            _loop = BackgroundLoop()
        return _loop


def _waited(future: Future[T], seconds: float) -> T:
    return future.result(timeout=seconds)


def _ended(future: Future[None]) -> None:
    try:
        future.result(timeout=3)
    except Exception:  # the process ends whatever a server does
        future.cancel()


_loop: BackgroundLoop | None = None
_lock = threading.Lock()


def _renew() -> None:
    global _lock, _loop
    _lock, _loop = threading.Lock(), None


os.register_at_fork(after_in_child=_renew)


def to_tool_result(result: CallToolResult) -> str:
    """The result's text; its structured content as JSON, where no text says the same.

    Raises:
        ToolError: the server says that the tool has failed.
    """
    texts = [text for part in result.content if (text := _part(part))]
    structured = result.structured_content
    if structured is not None and not any(_says(text, structured) for text in texts):
        texts.append(json.dumps(structured, ensure_ascii=False))
    if result.is_error:
        raise ToolError("\n".join(texts) or "the tool failed, and said nothing of it")
    return "\n".join(texts)


def _part(part: Any) -> str:
    kind = part.type
    if kind == "text":
        return str(part.text)
    if kind == "resource_link":
        return f"(a link to the resource {part.uri}{f', {part.description}' if part.description else ''})"
    if kind == "resource":
        text = getattr(part.resource, "text", None)
        where = f"the resource {part.resource.uri}"
        return f"{where}:\n{text}" if text is not None else f"({where}, which is no text)"
    return f"(content of the kind {kind}, {getattr(part, 'mime_type', 'unknown')}, which can't be read here)"


def _says(text: str, structured: Any) -> bool:
    """Whether a text is the structured content: as JSON, or as the bare value that the server put into ``result``."""
    bare = structured["result"] if isinstance(structured, dict) and set(structured) == {"result"} else structured
    if text == bare:
        return True
    try:
        return json.loads(text) in (structured, bare)
    except ValueError:
        return False


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

        return run_in_thread(lambda tell: self._called(name, args, tell), hear)

    def _called(self, name: str, args: dict[str, Any], tell: Callable[[Any], None]) -> str:
        from mcp import MCPError

        async def hear(progress: float, total: float | None, message: str | None) -> None:
            fraction = min(1.0, progress / total) if total else None
            tell((message or f"{progress:g}{f' of {total:g}' if total else ''}", fraction))

        async def ask(client: Client) -> str:
            return to_tool_result(await client.call_tool(name, args, progress_callback=hear))

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
