"""Serve an agent over HTTP: the socket, uvicorn, and what has to be ready before the first request."""

from __future__ import annotations

import contextlib
import errno
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import dspy
import mlflow
import uvicorn
from mlflow.exceptions import MlflowException
from mlflow.models import get_model_info
from mlflow.pyfunc import MODEL_CONFIG, ResponsesAgent
from pydantic import ValidationError

from oneturn.agent import Agent
from oneturn.config import ServeConfig
from oneturn.config.tracking import use_tracking, without_credentials
from oneturn.errors import ConfigError, OneTurnError, ProgramError
from oneturn.programs import guarded_tools
from oneturn.responses import ResponsesAdapter
from oneturn.serving.access import is_loopback
from oneturn.serving.app import AgentApplication, application
from oneturn.serving.protocol import GRACE_SECONDS
from oneturn.tools.approvals import Approvals

_KEEP_ALIVE_SECONDS = 90  # more than the 60 s of common load balancers, which reuse idle connections
_WORKER_SECONDS = 60  # for a worker to answer its supervisor's ping, which it can't while it imports C extensions
_TERMINAL_EVENT_SECONDS = 5  # for cancelled requests to send their terminal event
_QUEUED_CONNECTIONS = 2048


def serve(
    agent_or_model: Agent | ResponsesAgent | str,
    *,
    host: str | None = None,
    port: int | None = None,
    settings: ServeConfig | None = None,
) -> None:
    """Serve an agent until interrupted (Ctrl-C).

    Args:
        agent_or_model: an agent, the URI of a logged model (``models:/my_agent/1``), or any ``ResponsesAgent``.
        host: the address to listen on; ``None`` for the configured one, or 127.0.0.1.
        port: the port to listen on, 0 for any free one; ``None`` for the configured one, or 8000.
        settings: the server's settings; ``None`` for those of the agent's or the logged model's configuration, or the
            defaults.

    Raises:
        ConfigError: the key that signs approvals is missing, and other machines can reach ``host``; or the environment
            variable of ``serve.api_key_env`` isn't set.
        OneTurnError: the address is unusable or its port is in use, or the model can't be loaded.
    """
    settings = settings or _own_settings(agent_or_model)
    host = host or settings.host
    with listening_socket(host, settings.port if port is None else port) as listener:  # before starting the LM
        app = build_application(agent_or_model, settings, host)
        server = Server(server_config(app))
        server.on_ready = lambda: print_stderr(
            f"Serving at {server_url(host, listener)} (POST /v1/responses and /responses). Ctrl-C stops."
        )
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn has shut down cleanly
            server.run(sockets=[listener])


def _own_settings(served: Agent | ResponsesAgent | str) -> ServeConfig:
    if isinstance(served, str):
        return logged_settings(served)
    return served.config.serve if isinstance(served, Agent) else ServeConfig()


def logged_settings(uri: str) -> ServeConfig:
    """Return the settings of a server in the configuration of a logged model; the defaults if it has none.

    Raises:
        ProgramError: the model doesn't exist, or can't be read.
    """
    with _explained(uri):
        config = get_model_info(uri).flavors.get("python_function", {}).get(MODEL_CONFIG)
    with contextlib.suppress(ValidationError):  # the configuration of another kind of agent
        return ServeConfig.model_validate(config.get("serve", {}) if isinstance(config, Mapping) else {})
    return ServeConfig()


def build_application(
    served: Agent | ResponsesAgent | str, settings: ServeConfig, host: str, processes: int = 1
) -> AgentApplication:
    """Return the application that serves an agent, ready for its first request.

    Args:
        served: as for ``serve``.
        settings: the server's settings.
        host: the address to listen on.
        processes: how many processes share the requests.

    Raises:
        ConfigError, OneTurnError: as for ``serve``.
    """
    responder = _responder(served)
    loopback = is_loopback(host)
    app = application(responder, **_identity(served), settings=settings, loopback=loopback)
    open_approvals(responder, host, processes)
    warm_up(responder)
    return app


def _identity(served: Agent | ResponsesAgent | str) -> dict[str, Any]:
    """Return the name, the version and example questions of what is served, as far as they are known."""
    if isinstance(served, Agent):
        return {"name": served.name, "example_questions": tuple(served.example_questions)}
    match = re.fullmatch(r"models:/+([^/@]+)(?:[/@](.+))?", served) if isinstance(served, str) else None
    return {"name": match[1], "version": match[2]} if match else {}


@contextlib.contextmanager
def running_server(
    adapter: ResponsesAgent, host: str = "127.0.0.1", port: int = 0, *, settings: ServeConfig | None = None
) -> Iterator[str]:
    """Serve ``adapter`` in a background thread within a ``with`` block; yield the URL of the started server.

    Args:
        adapter: the agent.
        host: the address to listen on.
        port: the port, 0 for any free one.
        settings: limits, who may send requests, and how tool calls appear.

    Raises:
        OneTurnError: the address is unusable or its port is in use, or the server doesn't start.
    """
    with running_application(application(adapter, settings=settings, loopback=is_loopback(host)), host, port) as url:
        yield url


@contextlib.contextmanager
def running_application(app: Any, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Serve an application with a method ``stop``, as ``running_server`` does an agent.

    Raises:
        OneTurnError: as for ``running_server``.
    """
    with listening_socket(host, port) as listener:
        server = Server(server_config(app))
        ready = threading.Event()
        server.on_ready = ready.set

        def run() -> None:
            try:
                server.run(sockets=[listener])
            finally:
                ready.set()  # also if the server fails to start

        thread = threading.Thread(target=run, name="oneturn-server", daemon=True)
        thread.start()
        ready.wait()
        if not server.started:
            raise OneTurnError(f"The server didn't start on {host}; see its log for the cause.")
        try:
            yield server_url(host, listener)
        finally:
            server.should_exit = True
            thread.join()


def server_config(app: Any, **options: Any) -> uvicorn.Config:
    """Return uvicorn's configuration for an application, or for the import string of a function that builds it."""
    return uvicorn.Config(
        app,
        http="oneturn.serving.protocol:TimedProtocol",  # a worker imports it after it has begun to answer pings
        timeout_worker_healthcheck=_WORKER_SECONDS,
        ws="none",
        interface="asgi3",
        proxy_headers=False,  # nothing depends on the client's address
        log_level="warning",
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS + _TERMINAL_EVENT_SECONDS,
        **options,
    )


class Server(uvicorn.Server):
    """uvicorn with a callback for readiness."""

    on_ready: Callable[[], object] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept requests, and call ``on_ready``."""
        await super().startup(sockets)
        if self.started and self.on_ready is not None:
            self.on_ready()


@contextlib.contextmanager
def listening_socket(host: str, port: int) -> Iterator[socket.socket]:
    """Yield a socket that listens on an address.

    Raises:
        OneTurnError: the address is unusable, or its port is in use.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(_QUEUED_CONNECTIONS)
        except (OSError, OverflowError) as error:
            raise OneTurnError(_listen_error(error, host, port)) from error
        yield listener


def _listen_error(error: Exception, host: str, port: int) -> str:
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return f"Port {port} on {host} is in use by another process; choose another port, or 0 for any free port."
    return f"Can't listen on {host}, port {port}: {error}. Choose a local address and a port from 0 to 65535."


def server_url(host: str, listener: socket.socket) -> str:
    """Return the URL of a server that listens on a socket."""
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{listener.getsockname()[1]}"


def _responder(agent_or_model: Agent | ResponsesAgent | str) -> ResponsesAgent:
    if isinstance(agent_or_model, ResponsesAgent):
        return agent_or_model
    if isinstance(agent_or_model, str):
        return load_logged(agent_or_model)
    use_tracking(agent_or_model.config.mlflow, agent_or_model.root)
    return agent_or_model.adapter()


def load_logged(uri: str) -> ResponsesAgent:
    """Load the ``ResponsesAgent`` of a logged model; MLflow's ``unwrap_python_model`` fails on a ``ResponsesAgent``.

    Raises:
        ProgramError: the model can't be loaded, or isn't a ``ResponsesAgent``.
    """
    with _explained(uri):
        model = mlflow.pyfunc.load_model(uri).get_raw_model()
    if not isinstance(model, ResponsesAgent):
        raise ProgramError(f"The model {uri!r} is a {type(model).__name__}; only a ResponsesAgent can be served.")
    return model


@contextlib.contextmanager
def _explained(uri: str) -> Iterator[None]:
    """Convert MLflow's errors at reading a logged model."""
    try:
        yield
    except (MlflowException, NotImplementedError, OSError) as error:
        tracking_uri = without_credentials(mlflow.get_tracking_uri())
        raise ProgramError(
            f"The model {uri!r} can't be loaded from {tracking_uri}: {str(error).rstrip('.')}. Log it with: oneturn log"
        ) from error


def open_approvals(responder: ResponsesAgent, host: str, processes: int = 1) -> None:
    """Read the key of approvals and connect to their ledger before the first request.

    A single process that only this machine can reach makes a key if none is set, and says so.

    Args:
        responder: the agent to serve.
        host: the address to listen on.
        processes: how many processes serve the agent.

    Raises:
        ConfigError: the key or the ledger's address is missing or invalid; it names the environment variable.
    """
    if not isinstance(responder, ResponsesAdapter):
        return
    approvals, missing = responder.approvals, ""
    if approvals is None:
        if not (tools := guarded_tools(responder.program)):
            return
        missing = f"{', '.join(tools)} may need a person's approval, and approvals.key_env isn't set"
    elif approvals.missing_key_env is not None:
        missing = f"{approvals.missing_key_env} (approvals.key_env) isn't set"
    if missing and is_loopback(host) and processes == 1:
        if approvals is None:
            approvals = responder.approvals = Approvals.temporary()
        approvals.use_temporary_key()
        print_stderr(f"{missing}: a key for this process signs approvals until the server stops.")
    if approvals is None:
        raise ConfigError(f"{missing}. Set it to the name of an environment variable that holds a signing key.")
    approvals.open()


def warm_up(responder: ResponsesAgent) -> None:
    """Start the embedded LM, if the agent uses it, so that the first request doesn't wait for it."""
    if not isinstance(responder, ResponsesAdapter):
        return
    module = getattr(responder.program, "module", responder.program)  # unwrap a ModuleProgram
    if isinstance(module, dspy.Module):
        from oneturn.lm import local

        local.warm_up(module)


def print_stderr(text: str) -> None:
    """Print a line on standard error at once."""
    print(text, file=sys.stderr, flush=True)
