"""``oneturn serve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from oneturn.cli.options import AGENT_FILE, AgentFile, ConfigFile, load


def serve(
    host: Annotated[str | None, typer.Option(help="The address to listen on; by default the configured one.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="The port; 0 for any free one.")] = None,
    model: Annotated[
        str | None, typer.Option(metavar="URI", help="Serve this logged model instead of the agent's file.")
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Serve from N processes, which share the port and a configured store. Limits count per process.",
        ),
    ] = 1,
    reload: Annotated[
        bool, typer.Option("--reload", help="Restart when a Python file of the agent changes; for development.")
    ] = False,
    agent: AgentFile = AGENT_FILE,
    config: ConfigFile = None,
) -> None:
    """Serve the agent over the OpenAI Responses protocol, with streaming, until Ctrl-C.

    A logged model has its own configuration; --config replaces that of the server (serve.*), and
    names the MLflow tracking server.

    Examples:

        oneturn serve

        oneturn serve --port 0

        oneturn serve --workers 4

        oneturn serve --model models:/my_agent/1
    """
    if workers > 1 and reload:
        raise typer.BadParameter("can't be used with --reload, which serves from one process.", param_hint="--workers")
    if workers > 1 or reload:
        _serve_in_processes(host, port, model, workers, reload, agent, config)
    elif model is None:
        loaded = load(agent, config)

        from oneturn.serving.server import serve

        serve(loaded, host=host, port=port)
    else:
        _serve_logged(model, host, port, agent, config)


def _serve_logged(model: str, host: str | None, port: int | None, agent: Path, config: Path | None) -> None:
    from oneturn.config import AgentConfig
    from oneturn.config.tracking import use_tracking
    from oneturn.serving.server import serve

    settings = None
    if config is not None:
        read = AgentConfig.read(config)
        use_tracking(read.mlflow, agent.resolve().parent if agent.is_file() else None)
        settings = read.serve
    serve(model, host=host, port=port, settings=settings)


def _serve_in_processes(
    host: str | None,
    port: int | None,
    model: str | None,
    processes: int,
    reload: bool,
    agent: Path,
    config: Path | None,
) -> None:
    from oneturn.serving.workers import AgentSource, serve_in_processes

    path = None if config is None else str(config.resolve())
    source = AgentSource(str(agent.resolve()), model, path, host, port, processes)
    serve_in_processes(source, reload=reload)
