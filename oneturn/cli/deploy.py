"""``oneturn deploy``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from oneturn.cli.options import AGENT_FILE, AgentFile, ConfigFile, load

STAGING, PRODUCTION = Path("configs/staging.yaml"), Path("configs/prod.yaml")

deploy = typer.Typer(
    no_args_is_help=True,
    help="Bring the agent to Databricks: Model Serving, a Databricks App, or a bundle for CI/CD.",
    rich_markup_mode="markdown",
)

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")]
NoCheck = Annotated[
    bool, typer.Option("--no-check", help="Don't look first whether what the configuration names is there.")
]
Version = Annotated[
    str | None,
    typer.Argument(metavar="[VERSION]", help="A version or an alias; the champion, or the latest, if not said."),
]


@deploy.command()
def serving(
    version: Version = None,
    dry_run: DryRun = False,
    no_check: NoCheck = False,
    agent: AgentFile = AGENT_FILE,
    config: ConfigFile = None,
) -> None:
    """Let an endpoint of Model Serving serve a registered version; waits until it does.

    Examples:

        oneturn deploy serving --config configs/prod.yaml

        oneturn deploy serving challenger --dry-run
    """
    loaded = load(agent, config)

    from oneturn.databricks.serving import deploy_serving
    from oneturn.databricks.serving_plan import plan_serving

    plan = plan_serving(loaded, version, check=not no_check)
    _say(plan.lines())
    if dry_run:
        return
    done = deploy_serving(plan, typer.echo)
    question = loaded.example_questions[0]
    typer.echo(f"Version {plan.version} answers at {done.url}")
    typer.echo(f"Its page:    {done.page}")
    typer.echo(f"Review app:  {done.review_app}")
    typer.echo(f'Ask it:      oneturn query {done.url} "{question}"')
    typer.echo("Go back:     oneturn rollback")


@deploy.command()
def app(
    dry_run: DryRun = False,
    no_check: NoCheck = False,
    agent: AgentFile = AGENT_FILE,
    config: ConfigFile = None,
) -> None:
    """Serve the agent as it stands here from a Databricks App; waits until it runs.

    Examples:

        oneturn deploy app --config configs/prod.yaml

        oneturn deploy app --dry-run
    """
    loaded = load(agent, config)

    from oneturn.databricks.app import deploy_app
    from oneturn.databricks.app_plan import plan_app

    plan = plan_app(loaded, check=not no_check)
    _say(plan.lines())
    if dry_run:
        return
    done = deploy_app(plan, typer.echo)
    typer.echo(f"The app {plan.name} answers at {done.url}")
    typer.echo(f'Ask it:   oneturn query {done.url} "{loaded.example_questions[0]}"')
    typer.echo("Go back:  oneturn rollback --app")


@deploy.command()
def bundle(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Where to write it.")] = Path("build/bundle"),
    agent: AgentFile = AGENT_FILE,
    dev: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="The target dev's configuration; configs/staging.yaml, if there is one."),
    ] = None,
    prod: Annotated[Path, typer.Option(metavar="PATH", help="The target prod's configuration.")] = PRODUCTION,
    dry_run: DryRun = False,
) -> None:
    """Write a Declarative Automation Bundle, for CI/CD: a release job and an app, for development and production.

    Examples:

        oneturn deploy bundle

        cd build/bundle && databricks bundle deploy --target prod && databricks bundle run release --target prod
    """
    dev = dev or (STAGING if STAGING.is_file() else prod)
    agents = {"dev": load(agent, dev), "prod": load(agent, prod)}

    from oneturn.databricks.bundle import bundle, write_bundle

    if dry_run:
        import yaml

        typer.echo(yaml.safe_dump(bundle(agents), sort_keys=False))
        return
    written = write_bundle(agents, folder)
    typer.echo(f"Wrote {len(written)} files to {folder}. Next:")
    typer.echo(f"  cd {folder} && databricks bundle validate --target prod")
    typer.echo("  databricks bundle deploy --target prod && databricks bundle run release --target prod")
    typer.echo("  databricks bundle run agent --target prod    # the app")


def _say(lines: list[str]) -> None:
    for line in lines:
        typer.echo(line)
