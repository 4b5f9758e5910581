"""Serve an agent over HTTP, through MLflow's own ``AgentServer``, as Databricks Apps does.

``AgentServer`` calls synchronous functions on its event loop, one after the other, and tells clients the text of any
exception. So it is given asynchronous functions, which run the agent in threads, and its errors are rewritten into
the shape of OpenAI's.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import sys
import threading
from collections.abc import Callable, Iterator

import dspy
import mlflow
import uvicorn
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import ResponsesAgent

from oneturn.agent import Agent
from oneturn.config.tracking import shown, use_tracking
from oneturn.errors import OneTurnError, ProgramError
from oneturn.responses import ResponsesAdapter
from oneturn.serving.app import application

_SECONDS_TO_FINISH = 5  # what open requests get when the server is stopped
_SECONDS_TO_END = 5  # what they get then to say that they were
_QUEUED_CONNECTIONS = 2048


def serve(agent_or_model: Agent | ResponsesAgent | str, *, host: str | None = None, port: int | None = None) -> None:
    """Serve an agent until it is interrupted (Ctrl-C).

    Args:
        agent_or_model: an agent; a logged model's URI, such as ``models:/support_desk/1``; any ``ResponsesAgent``.
        host: the address to listen on; ``None`` for the configured one, or 127.0.0.1.
        port: the port to listen on, 0 for any free one; ``None`` for the configured one, or 8000.

    Raises:
        OneTurnError: the port is taken, or the model can't be loaded.
    """
    configured = agent_or_model.config.serve if isinstance(agent_or_model, Agent) else None
    host = host or (configured.host if configured else "127.0.0.1")
    port = port if port is not None else (configured.port if configured else 8000)
    with _listening(host, port) as listener:  # a port that is taken should show before the LM is started
        responder = _responder(agent_or_model)
        warm_up(responder)
        server = _Server(responder)
        server.when_ready = lambda: _say(f"Serving at {_url(host, listener)} (POST /responses). Ctrl-C stops.")
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn has shut down properly by then
            server.run(sockets=[listener])


@contextlib.contextmanager
def running_server(adapter: ResponsesAgent, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Serve ``adapter`` from a thread while the block runs; yields the server's URL once it answers.

    Raises:
        OneTurnError: the port is taken.
    """
    with _listening(host, port) as listener:
        server = _Server(adapter)
        ready = threading.Event()
        server.when_ready = ready.set

        def run() -> None:
            try:
                server.run(sockets=[listener])
            finally:
                ready.set()  # a server that fails to start must not leave anybody waiting

        thread = threading.Thread(target=run, name="oneturn-server", daemon=True)
        thread.start()
        ready.wait()
        if not server.started:
            raise OneTurnError(f"The server didn't start on {host}; its log tells why.")
        try:
            yield _url(host, listener)
        finally:
            server.should_exit = True
            thread.join()


class _Server(uvicorn.Server):
    """uvicorn, telling when it is ready."""

    def __init__(self, responder: ResponsesAgent):
        self._application = app = application(responder)
        limit = _SECONDS_TO_FINISH + _SECONDS_TO_END
        config = uvicorn.Config(app, interface="asgi3", log_level="warning", timeout_graceful_shutdown=limit)
        super().__init__(config)
        self.when_ready: Callable[[], object] = lambda: None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.when_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no new requests, let the open ones finish, and end those that don't with a terminal event."""
        asyncio.get_running_loop().call_later(_SECONDS_TO_FINISH, self._application.stop)
        await super().shutdown(sockets)


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(_QUEUED_CONNECTIONS)
        except (OSError, OverflowError) as error:
            raise OneTurnError(_why_not(error, host, port)) from error
        yield listener


def _why_not(error: Exception, host: str, port: int) -> str:
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return f"Port {port} of {host} is taken by another process; choose another one, or port 0 for any free one."
    return (
        f"Can't listen on {host}, port {port}: {error}. Choose an address of this machine, and a port from 0 to 65535."
    )


def _url(host: str, listener: socket.socket) -> str:
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{listener.getsockname()[1]}"


def _responder(agent_or_model: Agent | ResponsesAgent | str) -> ResponsesAgent:
    if isinstance(agent_or_model, ResponsesAgent):
        return agent_or_model
    if isinstance(agent_or_model, str):
        return load_logged(agent_or_model)
    use_tracking(agent_or_model.config.mlflow)
    return agent_or_model.adapter()


def load_logged(uri: str) -> ResponsesAgent:
    """The ``ResponsesAgent`` of a logged model, for ``running_server``; MLflow's ``unwrap_python_model`` fails on one.

    Raises:
        ProgramError: there is no such model, or it is something else.
    """
    try:
        model = mlflow.pyfunc.load_model(uri).get_raw_model()
    except (MlflowException, NotImplementedError, OSError) as error:
        where = shown(mlflow.get_tracking_uri())
        raise ProgramError(
            f"The model {uri!r} can't be loaded from {where}: {str(error).rstrip('.')}. Log it with: oneturn log"
        ) from error
    if not isinstance(model, ResponsesAgent):
        raise ProgramError(f"The model {uri!r} is a {type(model).__name__}; only a ResponsesAgent can be served.")
    return model


def warm_up(responder: ResponsesAgent) -> None:
    """Let the embedded LM be ready, if that is what answers: better now than while the first client waits."""
    if not isinstance(responder, ResponsesAdapter):
        return
    module = getattr(responder.program, "module", responder.program)  # a dspy.Module stands in a program of ours
    if isinstance(module, dspy.Module):
        from oneturn.lm import local

        local.warm_up(module)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
