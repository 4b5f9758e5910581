"""``oneturn rollback``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from oneturn.cli.options import AGENT_FILE, AgentFile, ConfigFile, load


def rollback(
    version: Annotated[
        str | None, typer.Argument(metavar="[VERSION]", help="Where to go; the version before, if not said.")
    ] = None,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; it is recorded on the version that goes.")] = "",
    app: Annotated[bool, typer.Option("--app", help="The Databricks App, instead of the serving endpoint.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")] = False,
    agent: AgentFile = AGENT_FILE,
    config: ConfigFile = None,
) -> None:
    """Give the endpoint's requests, and the alias, back to the version before. It runs already: seconds, not minutes.

    Examples:

        oneturn rollback --reason "version 7 invents prices"

        oneturn rollback 5 --dry-run

        oneturn rollback --app
    """
    if app:
        _roll_back_app(agent, config, dry_run)
        return
    if not (dry_run or reason.strip()):
        raise typer.BadParameter("say why: it is recorded on the version that goes.", param_hint="--reason")
    loaded = load(agent, config)

    from oneturn.databricks.rollback import plan_rollback, roll_back

    plan = plan_rollback(loaded, version)
    for line in plan.lines():
        typer.echo(line)
    if not dry_run:
        roll_back(plan, reason, typer.echo)
        typer.echo(f"Version {plan.target} answers.")


def _roll_back_app(agent: Path, config: Path | None, dry_run: bool) -> None:
    loaded = load(agent, config)

    from oneturn.databricks.app_rollback import plan_app_rollback, roll_back_app

    plan = plan_app_rollback(loaded)
    for line in plan.lines():
        typer.echo(line)
    if not dry_run:
        roll_back_app(plan)
        typer.echo("It runs.")
