"""``oneturn log``."""

from __future__ import annotations

from typing import Annotated

import typer

from oneturn.cli.options import AGENT_FILE, AgentFile, ConfigFile, load


def log(
    register: Annotated[
        bool, typer.Option("--register", help="Register it under the configured name, as a new version.")
    ] = False,
    alias: Annotated[
        str | None, typer.Option(metavar="NAME", help="The alias that the registered version gets.")
    ] = None,
    agent: AgentFile = AGENT_FILE,
    config: ConfigFile = None,
) -> None:
    """Log the agent as an MLflow model: code, configuration, compiled program, pinned requirements.

    Examples:

        oneturn log

        oneturn log --register --alias challenger --config configs/prod.yaml
    """
    loaded = load(agent, config)

    from oneturn.model_log import log
    from oneturn.tracking import shown

    logged = log(loaded, register=register, alias=alias)
    settings = loaded.config.mlflow
    typer.echo(f"Logged {logged.model_uri} in {shown(settings.tracking_uri)} (run {logged.run_id})")
    if logged.registered_version is not None:
        known_as = f", {alias}" if alias else ""
        typer.echo(f"Registered as version {logged.registered_version} of {settings.model_name}{known_as}")
        if settings.tracking_uri.startswith("databricks"):
            typer.echo(f"Deploy it: oneturn deploy serving {logged.registered_version}")
    typer.echo(f"Serve it:  oneturn serve --model {logged.model_uri}")
    typer.echo(f'Ask it:    oneturn query http://127.0.0.1:{loaded.config.serve.port} "…"')
