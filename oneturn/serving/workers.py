"""Serve an agent in several processes, or in one that restarts when its code changes, by uvicorn's own supervisors.

Each process builds the agent itself. What it needs is handed over in environment variables.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import ChangeReload, Multiprocess

from oneturn.agent import Agent, load_agent
from oneturn.config import AgentConfig, ServeConfig
from oneturn.config.loading import environment_variable
from oneturn.config.tracking import use_tracking
from oneturn.errors import OneTurnError
from oneturn.serving.app import AgentApplication
from oneturn.serving.server import (
    Server,
    build_application,
    listening_socket,
    logged_settings,
    print_stderr,
    server_config,
    server_url,
)

_SOURCE_VARIABLE = "ONETURN_SERVE"
_FACTORY = "oneturn.serving.workers:create_application"


@dataclass(frozen=True)
class AgentSource:
    """What the processes serve, and where.

    Attributes:
        agent: the file that declares the agent.
        model: the URI of a logged model, instead of a file.
        config: a configuration file, instead of the agent's own.
        host: the address to listen on; ``None`` for the configured one.
        port: the port, 0 for any free one; ``None`` for the configured one.
        processes: how many processes there are.
    """

    agent: str
    model: str | None = None
    config: str | None = None
    host: str | None = None
    port: int | None = None
    processes: int = 1

    def load(self) -> tuple[Agent | str, ServeConfig]:
        """Return the agent, or the model's URI, and the server's settings.

        Raises:
            OneTurnError: the agent or its configuration is invalid, or there is no such model.
        """
        if self.model is None:
            agent = load_agent(self.agent, self.config)
            return agent, self._with_address(agent.config.serve)
        if self.config is None:
            return self.model, self._with_address(logged_settings(self.model))
        settings = AgentConfig.read(self.config)
        file = Path(self.agent)
        use_tracking(settings.mlflow, file.resolve().parent if file.is_file() else None)
        return self.model, self._with_address(settings.serve)

    def _with_address(self, settings: ServeConfig) -> ServeConfig:
        return settings.model_copy(update={"host": self.host or settings.host})


def serve_in_processes(source: AgentSource, *, reload: bool = False) -> None:
    """Serve an agent from several processes until interrupted (Ctrl-C). They share the port, and a configured store.

    Args:
        source: the agent.
        reload: restart the process when a Python file below the working directory or the agent's folder changes.

    Raises:
        OneTurnError: the agent or its configuration is invalid, the address is unusable, or a process doesn't start.
    """
    agent, settings = source.load()
    if isinstance(agent, Agent):
        use_tracking(agent.config.mlflow, agent.root)  # creates the database, if need be, before the processes use it
    port = settings.port if source.port is None else source.port
    with ExitStack() as stack:
        listener = stack.enter_context(listening_socket(settings.host, port))
        stack.enter_context(environment_variable(_SOURCE_VARIABLE, json.dumps(asdict(source))))
        folders = sorted({os.getcwd(), os.path.dirname(source.agent)}) if reload else None
        config = server_config(_FACTORY, factory=True, workers=source.processes, reload=reload, reload_dirs=folders)
        how = "1 process, which restarts when the code changes" if reload else f"{source.processes} processes"
        print_stderr(f"Serving at {server_url(settings.host, listener)} from {how}. Ctrl-C stops.")
        with suppress(KeyboardInterrupt):
            if reload:
                ChangeReload(config, target=Server(config).run, sockets=[listener]).run()
            else:
                supervisor = _Supervisor(config, sockets=[listener])
                supervisor.run()
                if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
                    raise OneTurnError("The server didn't start; its processes have said why.")


class _Supervisor(Multiprocess):
    """uvicorn's supervisor, which notices at once that a process has ended.

    It keeps the process's end of their pipe open, and so waits for an answer until its time limit.
    """

    def keep_subprocess_alive(self) -> None:
        """Check each process, and replace one that has ended."""
        for process in self.processes:
            process.child_conn.close()
        super().keep_subprocess_alive()


def create_application() -> AgentApplication:
    """Build the application of one process; called by uvicorn. An error ends the process and its supervisor."""
    source = AgentSource(**json.loads(os.environ[_SOURCE_VARIABLE]))
    try:
        agent, settings = source.load()
        return build_application(agent, settings, settings.host, source.processes)
    except OneTurnError as error:
        print_stderr(f"Error: {error}")
        sys.exit(STARTUP_FAILURE)
