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
    agent: AgentFile = AGENT_FILE,
    config: ConfigFile = None,
) -> None:
    """Serve the agent over the OpenAI Responses protocol, with streaming, until Ctrl-C.

    A logged model has its own configuration; --config then sets only the address and the MLflow tracking server.

    Examples:

        oneturn serve

        oneturn serve --port 0

        oneturn serve --model models:/support_desk/1
    """
    if model is None:
        loaded = load(agent, config)

        from oneturn.serving.server import serve

        serve(loaded, host=host, port=port)
    else:
        _serve_logged(model, host, port, config)


def _serve_logged(model: str, host: str | None, port: int | None, config: Path | None) -> None:
    from oneturn.config import AgentConfig
    from oneturn.config.tracking import use_tracking
    from oneturn.serving.server import serve

    if config is not None:
        settings = AgentConfig.read(config)
        use_tracking(settings.mlflow)
        host = host or settings.serve.host
        port = settings.serve.port if port is None else port
    serve(model, host=host, port=port)
