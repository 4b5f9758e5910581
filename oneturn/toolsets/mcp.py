"""The tools of an MCP server as synchronous tools, through the official SDK."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import json
import logging
import os
import threading
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import anyio
import dspy

from oneturn.config.tools import McpTools
from oneturn.core.background import ConsumerGone, run_async, run_in_thread
from oneturn.core.databricks_auth import Who, schema_credentials, workspace_client
from oneturn.core.run_context import RunContext, report
from oneturn.errors import ConfigError, OneTurnError, ToolError
from oneturn.toolsets.json_schema import schema_tool

if TYPE_CHECKING:
    import httpx2
    from mcp import Client
    from mcp.types import CallToolResult, Tool


T = TypeVar("T")
_log = logging.getLogger(__name__)
_LIST_SECONDS = 60.0  # includes the start of a server over stdio
_CLOSE_SECONDS = 5.0


def to_tool_result(result: CallToolResult) -> str:
    """Return the result's text, and its structured content as JSON unless a text already contains it.

    Raises:
        ToolError: the server reports that the tool failed.
    """
    texts = [text for part in result.content if (text := _part_text(part))]
    structured = result.structured_content
    if structured is not None and not any(_is_same(text, structured) for text in texts):
        texts.append(json.dumps(structured, ensure_ascii=False))
    if result.is_error:
        raise ToolError("\n".join(texts) or "the tool failed without a message")
    return "\n".join(texts)


def _part_text(part: Any) -> str:
    kind = part.type
    if kind == "text":
        return str(part.text)
    if kind == "resource_link":
        return f"(a link to the resource {part.uri}{f', {part.description}' if part.description else ''})"
    if kind == "resource":
        text = getattr(part.resource, "text", None)
        where = f"the resource {part.resource.uri}"
        return f"{where}:\n{text}" if text is not None else f"({where}, which isn't text)"
    return f"(content of type {kind}, {getattr(part, 'mime_type', 'unknown')}, which can't be shown as text)"


def _is_same(text: str, structured: Any) -> bool:
    """Return whether a text is the structured content: as JSON, or as the bare value of its key ``result``."""
    bare = structured["result"] if isinstance(structured, dict) and set(structured) == {"result"} else structured
    if text == bare:
        return True
    try:
        return json.loads(text) in (structured, bare)
    except ValueError:
        return False


class McpSession:
    """A client session with one server. Its async methods run on the background event loop.

    Args:
        entry: the server's configuration.
        url: the server's full URL; ``None`` for a server over stdio.
        headers: sent with each request; they may be changed between calls.
    """

    def __init__(self, entry: McpTools, url: str | None, headers: dict[str, str]):
        self.headers = headers
        self._entry, self._url, self._pid = entry, url, os.getpid()
        self._client: Client | None = None
        self._task: asyncio.Task[None] | None = None
        self._end = asyncio.Event()
        self._opening = asyncio.Lock()
        self._calls = 0
        self._lost: asyncio.Event | None = None  # the end of a session that its HTTP server doesn't know any more

    async def call(self, work: Callable[[Client], Awaitable[T]]) -> T:
        """Return the result of ``work``. It is retried only if the server can't have processed it."""
        from mcp import MCPError

        with RunContext().active():  # the SDK keeps the context of the last message, which may hold a user's token
            client = await self._connect()
            session = self._end
            self._calls += 1
            try:
                return await work(client)
            except MCPError as error:
                if session is not self._lost and error.error.message != "Session terminated":
                    raise
                if session is self._end:  # no other call has opened a new one
                    await self.close()  # the server dropped the session and did nothing
                return await work(await self._connect())
            finally:
                self._calls -= 1

    async def call_once(self, work: Callable[[Client], Awaitable[T]]) -> T:
        """Return the result of ``work`` and close the session."""
        try:
            return await self.call(work)
        finally:
            await self.close()

    async def close(self) -> None:
        """Close the session. The next call opens a new one."""
        task, self._task, self._client = self._task, None, None
        if task is not None:
            self._end.set()
            with anyio.CancelScope(shield=True):  # also for a call that is cancelled
                await asyncio.wait([task], timeout=_CLOSE_SECONDS)
            task.cancel()

    def serves(self, url: str | None) -> bool:
        """Return whether the session is that of this process with ``url``; a forked process needs its own."""
        return (self._url, self._pid) == (url, os.getpid())

    async def _connect(self) -> Client:
        async with self._opening:
            if self._client is not None and not await self._is_alive(self._client):
                await self.close()
            if self._client is None:
                self._end = asyncio.Event()
                ready: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
                # Without the context of the call, such as its run and its user: the session outlives it.
                self._task = contextvars.Context().run(asyncio.create_task, self._serve(ready, self._end))
                try:
                    self._client = await ready
                except asyncio.CancelledError:
                    self._task.cancel()
                    raise
            return self._client

    async def _is_alive(self, client: Client) -> bool:
        """Return whether the server process still responds: a request to a process that has exited is lost."""
        if self._task is None or self._task.done():
            return False
        if self._url is not None or self._calls:
            return True  # over HTTP, each request reports its own failure; a server at work may answer nothing else
        try:
            await asyncio.wait_for(client.list_tools(cache_mode="refresh"), 10)
        except Exception as error:
            _log.warning("The MCP server %r has exited (%s); it is restarted.", self._entry.command, error)
            return False
        return True

    async def _serve(self, ready: asyncio.Future[Client], end: asyncio.Event) -> None:
        """Open the client and close it in the same task, as its cancel scopes require."""
        from mcp import Client

        try:
            async with AsyncExitStack() as stack:
                transport = await self._transport(stack, end)
                client = await stack.enter_async_context(Client(transport, cache=None))
                ready.set_result(client)
                await end.wait()
        except BaseException as error:
            if not ready.done():
                ready.set_exception(error)
            elif not isinstance(error, asyncio.CancelledError):
                _log.warning("An MCP session ended: %s", type(error).__name__)

    async def _transport(self, stack: AsyncExitStack, end: asyncio.Event) -> Any:
        from mcp import StdioServerParameters
        from mcp.client.streamable_http import streamable_http_client
        from mcp.shared._httpx_utils import create_mcp_http_client

        if self._url is None:
            env = {name: require_variable(name) for name in self._entry.env}
            return StdioServerParameters(command=str(self._entry.command), args=self._entry.args, env=env)
        http = create_mcp_http_client()
        http.event_hooks["request"].append(self._sign)
        http.event_hooks["response"].append(partial(self._note_lost, end))
        return streamable_http_client(self._url, http_client=await stack.enter_async_context(http))

    async def _note_lost(self, end: asyncio.Event, response: httpx2.Response) -> None:
        """Note that the server doesn't know the session with this end: status 404, as the protocol says."""
        if response.status_code == 404 and "mcp-session-id" in response.request.headers:
            self._lost = end

    async def _sign(self, request: httpx2.Request) -> None:
        request.headers.update(self.headers)


def require_variable(name: str) -> str:
    """Return the value of an environment variable.

    Raises:
        ConfigError: it isn't set.
    """
    if (value := os.environ.get(name)) is None:
        raise ConfigError(f"The environment variable {name} isn't set; a configured MCP server needs it.")
    return value


def mcp_tools(entry: McpTools) -> list[dspy.Tool]:
    """Return the server's tools that the configuration selects. The tools are listed from the server immediately.

    Raises:
        ConfigError: the extra isn't installed, the server can't be reached, or it doesn't have a configured tool.
    """
    server = McpServer(entry)
    tools = {tool.name: tool for tool in server.list_tools()}
    names = list(tools) if entry.tools is None else entry.tools
    if missing := [name for name in names if name not in tools]:
        raise ConfigError(f"The MCP server {server.address} has no tool {missing[0]!r}; it has: {', '.join(tools)}.")
    return [_build_tool(server, tools[name], entry) for name in names]


class McpServer:
    """A thread-safe client of a server. The process shares one session; a call with user credentials has its own."""

    def __init__(self, entry: McpTools):
        try:
            import mcp  # noqa: F401
        except ModuleNotFoundError:
            raise ConfigError('Tools of MCP servers need the extra: pip install "oneturn[mcp]"') from None
        self.entry = entry
        self.address = entry.command or entry.url
        self._lock = threading.Lock()
        self._shared: McpSession | None = None

    def list_tools(self) -> list[Tool]:
        """Return the server's tools.

        Raises:
            ConfigError: the server can't be reached.
        """
        try:
            who = None if self.entry.who is None else schema_credentials(self.entry.who)
            return self._run(_list_tools, who, _LIST_SECONDS)
        except OneTurnError:
            raise
        except Exception as error:  # transports raise errors of many types
            _log.debug("The MCP server didn't respond.", exc_info=error)
            reason = type(_innermost(error)).__name__
            raise ConfigError(
                f"The MCP server {self.address} can't be used ({reason}). Check that it is installed or running, and "
                "that these credentials may use it."
            ) from error

    def call(self, name: str, args: dict[str, Any]) -> str:
        """Return the text of a tool's result. The server's progress is reported as the run's progress."""

        def on_event(progress: tuple[str, float | None]) -> None:
            report(*progress)

        return run_in_thread(lambda emit: self._call_tool(name, args, emit), on_event)

    def _call_tool(self, name: str, args: dict[str, Any], emit: Callable[[Any], None]) -> str:
        from mcp import MCPError

        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            fraction = min(1.0, progress / total) if total else None
            with contextlib.suppress(ConsumerGone):  # the call is being cancelled
                emit((message or f"{progress:g}{f' of {total:g}' if total else ''}", fraction))

        async def send(client: Client) -> str:
            return to_tool_result(await client.call_tool(name, args, progress_callback=on_progress))

        try:
            return self._run(send, self.entry.who)
        except OneTurnError:
            raise
        except MCPError as error:
            if error.error.message == "Connection closed":
                raise ToolError("the tool's server exited during the call, which may have taken effect") from None
            raise ToolError(f"the server rejected the call: {error.error.message}") from None
        except Exception as error:
            raise ToolError(f"the tool's server can't be reached ({type(_innermost(error)).__name__})") from error

    def _run(self, work: Callable[[Client], Awaitable[T]], who: Who | None, timeout: float | None = None) -> T:
        url, headers = self._endpoint(who)
        if who == "user":  # never shared between users
            call = McpSession(self.entry, url, headers).call_once
        else:
            call = self._shared_session(url, headers).call
        result: T = run_async(call, work, timeout=timeout)
        return result

    def _shared_session(self, url: str | None, headers: dict[str, str]) -> McpSession:
        with self._lock:
            if self._shared is None or not self._shared.serves(url):
                self._shared = McpSession(self.entry, url, headers)
            self._shared.headers.update(headers)
            return self._shared

    def _endpoint(self, who: Who | None) -> tuple[str | None, dict[str, str]]:
        headers = {name: require_variable(variable) for name, variable in self.entry.headers.items()}
        url = self.entry.url
        if url is None or who is None:
            return url, headers
        config = workspace_client(who).config
        full_url = config.host.rstrip("/") + url if url.startswith("/") else url
        if urlsplit(full_url).netloc != urlsplit(config.host).netloc:
            raise ConfigError(f"{url} isn't in the workspace {config.host}; its credentials aren't sent elsewhere.")
        return full_url, {**headers, **config.authenticate()}


def _build_tool(server: McpServer, tool: Tool, entry: McpTools) -> dspy.Tool:
    name = tool.name
    if entry.name is not None:
        name = entry.name if len(entry.tools or ()) == 1 else f"{entry.name}_{name}"
    description = entry.description or tool.description or tool.title or ""
    return schema_tool(lambda args: server.call(tool.name, args), name, description, tool.input_schema, entry)


async def _list_tools(client: Client) -> list[Tool]:
    tools, cursor = [], None
    while True:
        page = await client.list_tools(cursor=cursor)
        tools += page.tools
        if (cursor := page.next_cursor) is None:
            return tools


def _innermost(error: BaseException) -> BaseException:
    """Return the first leaf exception of nested exception groups."""
    while inner := getattr(error, "exceptions", None):
        error = inner[0]
    return error
