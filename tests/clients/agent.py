"""The agent of the client matrix, served as ``oneturn serve`` does and at a workspace's paths; also without an LM."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import socket
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

import dspy
import uvicorn
from mlflow.entities import Document

import oneturn
from oneturn.config import ServeConfig
from oneturn.serving import application, running_server
from tests.clients.scripted_lm import CallLog, scripted_lm

ENDPOINT = "desk"
"""The name of the serving endpoint in the workspace's paths."""

_KEY = "0123456789abcdef" * 2  # signs approvals; a key of this test only
_STORE_ENV = "ONETURN_CLIENTS_STORE"
_ENDPOINT_PATH = re.compile(rf"/serving-endpoints/({ENDPOINT}/invocations|responses)")


class Desk(dspy.Signature):
    """Answer the question."""

    history: dspy.History = dspy.InputField(default=dspy.History(messages=[]))
    system_message: str = dspy.InputField(default="")
    question: str = dspy.InputField()
    tone: str = dspy.InputField(default="plain")
    answer: str = dspy.OutputField()
    sources: list[oneturn.Citation] = dspy.OutputField()
    sure: bool = dspy.OutputField()


def add(a: float, b: float) -> str:
    """Add two numbers."""
    return f"{a + b:g}"


def search(query: str) -> list[Document]:
    """Search the handbook."""
    return [Document("Open port 443.", {"title": "Ports", "doc_uri": "https://example.org/ports"}, id="ports")]


@oneturn.tool(approval=True)
def refund(euros: float) -> str:
    """Give a customer money back."""
    return f"{euros:g} euros refunded"


@dataclasses.dataclass(frozen=True)
class Servers:
    """Where the clients find the agent.

    Attributes:
        calls: the LM's calls.
        url: the served agent.
        store_url: the served agent, with a response store.
        no_lm_url: the served agent whose LM can't be reached.
        workspace_url: the first agent at the paths of a Databricks workspace.
        workspace_no_lm_url: the second agent at the paths of a Databricks workspace.
    """

    calls: CallLog
    url: str
    store_url: str
    no_lm_url: str
    workspace_url: str
    workspace_no_lm_url: str


@contextlib.contextmanager
def serve_agent() -> Iterator[Servers]:
    """Start the scripted LM and the servers in threads of this process."""
    calls = CallLog()
    with contextlib.ExitStack() as stack:
        lm_url = stack.enter_context(_uvicorn_in_thread(scripted_lm(calls)))
        closed = stack.enter_context(socket.socket())  # bound, but not listening
        closed.bind(("127.0.0.1", 0))
        no_lm_url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        adapters = {"url": _adapter(lm_url), "no_lm_url": _adapter(no_lm_url)}
        urls = {name: stack.enter_context(running_server(adapter)) for name, adapter in adapters.items()}
        workspaces = {f"workspace_{name}": stack.enter_context(_workspace(adapters[name])) for name in adapters}
        folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        os.environ[_STORE_ENV] = f"sqlite:///{folder}/responses.db"
        stored = running_server(adapters["url"], settings=ServeConfig(store_env=_STORE_ENV))
        yield Servers(calls, **urls, store_url=stack.enter_context(stored), **workspaces)


def _adapter(lm_url: str) -> oneturn.ResponsesAdapter:
    program = oneturn.ReAct(Desk, tools=[add, search, refund], max_iters=4, thoughts=True)
    program.set_lm(dspy.LM("openai/scripted", api_base=f"{lm_url}/v1", api_key="none", cache=False, num_retries=0))
    return oneturn.ResponsesAdapter(program, approvals=oneturn.Approvals(key=_KEY))


def _workspace(adapter: oneturn.ResponsesAdapter) -> contextlib.AbstractContextManager[str]:
    return _uvicorn_in_thread(_WorkspacePaths(application(adapter)))


class _WorkspacePaths:
    """The paths under which a workspace serves an endpoint; both lead to its ``/invocations``."""

    def __init__(self, app: Any):
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and _ENDPOINT_PATH.fullmatch(scope["path"]):
            scope = {**scope, "path": "/invocations", "raw_path": b"/invocations"}
        await self._app(scope, receive, send)


@contextlib.contextmanager
def _uvicorn_in_thread(app: Any) -> Iterator[str]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
