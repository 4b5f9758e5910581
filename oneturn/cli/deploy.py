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

    from oneturn.deployment.databricks.model_serving import deploy_serving, plan_serving

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

    from oneturn.deployment.databricks.apps import deploy_app, plan_app

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

    from oneturn.deployment.databricks.bundle import bundle, write_bundle

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

    from oneturn.deployment.databricks.rollback import plan_rollback, roll_back

    plan = plan_rollback(loaded, version)
    for line in plan.lines():
        typer.echo(line)
    if not dry_run:
        roll_back(plan, reason, typer.echo)
        typer.echo(f"Version {plan.target} answers.")


def _roll_back_app(agent: Path, config: Path | None, dry_run: bool) -> None:
    loaded = load(agent, config)

    from oneturn.deployment.databricks.rollback import plan_app_rollback, roll_back_app

    plan = plan_app_rollback(loaded)
    for line in plan.lines():
        typer.echo(line)
    if not dry_run:
        roll_back_app(plan)
        typer.echo("It runs.")


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

    from oneturn.config.tracking import shown
    from oneturn.deployment.model_logging import log_model

    logged = log_model(loaded, register=register, alias=alias)
    settings = loaded.config.mlflow
    typer.echo(f"Logged {logged.model_uri} in {shown(settings.tracking_uri)} (run {logged.run_id})")
    if logged.registered_version is not None:
        known_as = f", {alias}" if alias else ""
        typer.echo(f"Registered as version {logged.registered_version} of {settings.model_name}{known_as}")
        if settings.tracking_uri.startswith("databricks"):
            typer.echo(f"Deploy it: oneturn deploy serving {logged.registered_version}")
    typer.echo(f"Serve it:  oneturn serve --model {logged.model_uri}")
    typer.echo(f'Ask it:    oneturn query http://127.0.0.1:{loaded.config.serve.port} "…"')


def promote(
    version: Annotated[
        int | None, typer.Argument(metavar="[VERSION]", min=1, help="The registered version; the latest if not said.")
    ] = None,
    split: Annotated[str, typer.Option(metavar="NAME", help="The examples that both answer; never test.")] = "dev",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Compare, and leave the alias where it is.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Move the alias even if the rule doesn't hold.")] = False,
    reason: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Why; it is recorded. Needed with --force.")
    ] = None,
    agent: AgentFile = AGENT_FILE,
    config: ConfigFile = None,
) -> None:
    """Make a registered version the champion, if it is better: champion and version answer the same examples, paired.

    The alias moves if the configured rule holds. If it doesn't, the exit code is 1.

    Examples:

        oneturn promote

        oneturn promote 7 --dry-run

        oneturn promote 7 --force --reason "version 6 gives an outdated address"
    """
    if force and not (reason or "").strip():
        raise typer.BadParameter("say why with --reason: it is recorded on the version.", param_hint="--force")
    loaded = load(agent, config)

    from rich.console import Console

    from oneturn.deployment.promotion import promote

    done = promote(loaded, version, split=split, force=force, reason=reason, dry_run=dry_run)
    console = Console()
    if done.result is not None:
        console.print(done.result)
    else:
        console.out(done.verdict)
    what = f"Version {done.version} of {done.name}"
    if done.moved:
        console.out(
            f"{what} is the {done.alias} now{', by force' if done.forced else ''}; before: {done.replaced or 'none'}."
        )
    elif done.result is not None and not done.result.passed:
        console.out(f'{what} isn\'t the {done.alias}. To move the alias all the same: --force --reason "…"')
        raise typer.Exit(1)
    elif done.replaced != done.version:
        console.out(f"{what} could become the {done.alias}.")
