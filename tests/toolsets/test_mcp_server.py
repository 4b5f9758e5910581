"""Tools of a real MCP server of the official SDK, over stdio and HTTP, as the agent calls them: synchronously."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import os
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import dspy
import httpx2
import pytest

from oneturn.config.tools import McpTools
from oneturn.core.background import run_async
from oneturn.core.run_context import RunContext
from oneturn.errors import ConfigError, RunCancelled, ToolError
from oneturn.programs.react import ReAct
from oneturn.programs.state.interface import interface_of
from oneturn.testing import ScriptedLM, call, finish
from oneturn.toolsets.mcp import McpSession, mcp_tools

SERVER = str(Path(__file__).parent / "mcp_tool_server.py")


def entry(**keys: Any) -> McpTools:
    return McpTools(kind="mcp", **({"command": sys.executable, "args": [SERVER], "env": ["ENDED"]} | keys))


def by_name(tools: list[dspy.Tool]) -> dict[str, dspy.Tool]:
    return {tool.name: tool for tool in tools}


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("mcp") / "ended"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENDED", str(path))
        patch.setenv("UNTOLD", "a secret")
        yield path


@pytest.fixture(scope="module")
def shop(ended: Path) -> dict[str, dspy.Tool]:
    return by_name(mcp_tools(entry()))


@pytest.fixture(scope="module")
def url(ended: Path) -> Iterator[str]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    process = subprocess.Popen([sys.executable, SERVER, str(port)], stderr=subprocess.DEVNULL)
    latest = time.monotonic() + 30
    while True:
        assert process.poll() is None
        assert time.monotonic() < latest
        try:
            socket.create_connection(("127.0.0.1", port), 0.1).close()
            break
        except OSError:
            time.sleep(0.02)
    yield f"http://127.0.0.1:{port}/mcp"
    process.kill()
    process.wait()


def test_the_servers_schema_is_what_the_lm_reads(shop: dict[str, dspy.Tool]):
    assert shop["add"].desc == "Add two numbers."
    assert shop["add"].args == {
        "a": {"title": "A", "type": "integer"},
        "b": {"default": 1, "title": "B", "type": "integer"},
    }


def test_results(shop: dict[str, dspy.Tool]):
    assert shop["add"](a=1, b=2) == "3"
    assert '"limit": null' in shop["find"](word="x", limit=None)
    with pytest.raises(ToolError, match="no such order: 7"):
        shop["fail"](reason="7")
    with pytest.raises((ToolError, ValueError), match="'x' is not of type 'integer'"):
        shop["add"](a="x")
    with pytest.raises(ToolError, match="'a' is a required property"):
        shop["add"](b=1)


def test_over_http(url: str):
    tools = by_name(mcp_tools(entry(command=None, args=[], env=[], url=url, tools=["add", "fail"], name="shop")))
    assert list(tools) == ["shop_add", "shop_fail"]
    assert tools["shop_add"](a=1, b=2) == "3"


def test_only_the_named_variables_reach_the_program(shop: dict[str, dspy.Tool], ended: Path):
    assert shop["variable"](name="ENDED") == str(ended)
    assert shop["variable"](name="UNTOLD") == "not set"


def test_progress(shop: dict[str, dspy.Tool]):
    reported: list[tuple[str, float | None]] = []
    with RunContext(on_progress=lambda message, fraction, item=None: reported.append((message, fraction))).active():
        assert shop["count"](to=2) == "done"
    assert reported == [("at 1", 0.5), ("at 2", 1.0)]


def test_a_cancelled_run_cancels_the_call_in_the_server(shop: dict[str, dspy.Tool], ended: Path):
    waits = threading.Event()
    control = RunContext(on_progress=lambda message, fraction, item=None: waits.set())
    with control.active(), ThreadPoolExecutor() as pool:
        asked = pool.submit(contextvars.copy_context().run, lambda: shop["wait"]())
        assert waits.wait(10)
        assert shop["add"](a=1, b=1) == "2"  # another thread's call goes through meanwhile
        control.cancel("client_gone")
        with pytest.raises(RunCancelled, match="client_gone"):
            asked.result(10)
    latest = time.monotonic() + 10
    while not ended.exists() or not ended.read_text():
        assert time.monotonic() < latest, "the server wasn't informed"
    assert shop["add"](a=1, b=1) == "2"


def test_a_timeout(ended: Path):
    tool = by_name(mcp_tools(entry(tools=["wait"], timeout=0.2)))["wait"]
    program = ReAct("question -> answer", tools=[tool])
    with ScriptedLM(call("wait"), finish(answer="no")) as lm, dspy.context(lm=lm):
        assert program(question="?").answer == "no"
    assert "exceeded its timeout of 0.2 s" in lm.requests[-1].text


def test_a_server_that_ended_is_started_anew(ended: Path):
    tools = by_name(mcp_tools(entry()))
    with pytest.raises(ToolError, match="exited during the call"):
        tools["end"]()
    assert tools["add"](a=1, b=2) == "3"


def test_from_many_threads_and_inside_a_running_loop(shop: dict[str, dspy.Tool]):
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda number: shop["add"](a=number, b=0), range(40))) == [str(n) for n in range(40)]

    async def inside() -> str:
        return str(shop["add"](a=2, b=2))

    assert asyncio.run(inside()) == "4"
    assert sum(thread.name == "oneturn-event-loop" for thread in threading.enumerate()) == 1


@pytest.mark.parametrize("transport", ["stdio", "http"])
def test_a_session_keeps_nothing_of_the_run_that_opened_it(transport: str, ended: Path, url: str):
    keys = {"url": url, "command": None, "args": [], "env": []} if transport == "http" else {}
    run = RunContext(caller="a token")
    with run.active():
        (tool,) = mcp_tools(entry(tools=["add"], **keys))
        assert tool(a=1, b=2) == "3"
    kept = weakref.ref(run)
    del run
    for _ in range(100):  # the thread of the call may be ending still
        gc.collect()
        if kept() is None:
            break
    assert kept() is None


EXIT = """
import os, sys
from oneturn.config.tools import McpTools
from oneturn.toolsets.mcp import mcp_tools

entry = McpTools(kind="mcp", tools=["add"], **eval(sys.argv[1]))
tool, = mcp_tools(entry)
assert tool(a=1, b=2) == "3"
child = os.fork()
assert tool(a=1, b=2) == "3"
if child:
    assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.parametrize("transport", ["stdio", "http"])
def test_a_process_and_its_fork_end_without_a_word(transport: str, url: str):
    keys = {"url": url} if transport == "http" else {"command": sys.executable, "args": [SERVER]}
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", EXIT, repr(keys)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_can_not_be_had_is_said_when_the_program_is_built(ended: Path):
    with pytest.raises(ConfigError, match=r"has no tool 'divide'; it has: add, find"):
        mcp_tools(entry(tools=["divide"]))
    with pytest.raises(ConfigError, match=r"no-such-program.*can't be used \(FileNotFoundError\)"):
        mcp_tools(entry(command="no-such-program"))
    with pytest.raises(ConfigError, match="The environment variable NOT_THERE isn't set"):
        mcp_tools(entry(env=["NOT_THERE"]))


def test_drift_sees_them(shop: dict[str, dspy.Tool]):
    shape = interface_of(ReAct("question -> answer", tools=[shop["add"]])).tools["add"]
    assert set(shape.args) == {"a", "b"}


class Forgetful:
    """A stateful HTTP server that forgets its sessions when it restarts, as those of the official SDKs do."""

    def __init__(self) -> None:
        self.session: str | None = None
        self.opened = 0
        self.called = 0

    def __call__(self, request: Any) -> Any:
        if request.method != "POST":
            return httpx2.Response(405)
        message = json.loads(request.content)
        id, method, session = message.get("id"), message["method"], request.headers.get("mcp-session-id")
        if method == "initialize":
            self.opened += 1
            self.session = f"session-{self.opened}"
            known = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": SERVER_INFO}
            return self._answer(id, known, headers={"mcp-session-id": self.session})
        if session != self.session:
            error = {"code": -32001, "message": "Session not found"}
            return httpx2.Response(404, json={"jsonrpc": "2.0", "id": None, "error": error})
        if id is None:
            return httpx2.Response(202)
        if method == "tools/list":
            return self._answer(id, {"tools": [{"name": "add", "inputSchema": {"type": "object", "properties": {}}}]})
        self.called += method == "tools/call"
        return self._answer(id, {"content": [{"type": "text", "text": "ok"}]})

    def _answer(self, id: Any, result: dict[str, Any], **options: Any) -> Any:
        return httpx2.Response(200, json={"jsonrpc": "2.0", "id": id, "result": result}, **options)


SERVER_INFO = {"name": "forgetful", "version": "1"}


def test_a_session_that_an_http_server_has_forgotten_is_opened_anew(monkeypatch: pytest.MonkeyPatch):
    server = Forgetful()
    client = partial(httpx2.AsyncClient, transport=httpx2.MockTransport(server))
    monkeypatch.setattr("mcp.shared._httpx_utils.create_mcp_http_client", lambda *args, **options: client())
    (add,) = mcp_tools(McpTools(kind="mcp", url="http://forgetful.example/mcp"))
    assert add() == "ok"
    for restarts in (1, 2):
        server.session = None
        assert add() == "ok"
        assert server.called == 1 + restarts, "a call that the server refused is made once"


def test_a_server_at_work_is_left_alone(ended: Path, monkeypatch: pytest.MonkeyPatch):
    session = McpSession(entry(), None, {})

    async def no_answer(*args: Any, **options: Any) -> None:
        raise TimeoutError

    async def call_twice() -> tuple[Any, Any]:
        begun = asyncio.Event()
        end = asyncio.Event()

        async def slow(client: Any) -> Any:
            begun.set()
            await end.wait()
            return client

        first = asyncio.create_task(session.call(slow))
        await begun.wait()
        monkeypatch.setattr(session._client, "list_tools", no_answer)  # it answers nothing else meanwhile
        second = await session.call(same)
        end.set()
        await session.close()
        return await first, second

    async def same(client: Any) -> Any:
        return client

    one, other = run_async(call_twice)
    assert one is other
