"""``oneturn deploy``."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from oneturn.cli.options import AGENT_FILE, AgentFile, ConfigFile, build_console, echo, load

if TYPE_CHECKING:
    from oneturn.agent import Agent

STAGING, PRODUCTION = Path("configs/staging.yaml"), Path("configs/prod.yaml")

deploy = typer.Typer(
    no_args_is_help=True,
    help="Deploy the agent to Databricks: Model Serving, a Databricks App, or a bundle for CI/CD.",
    rich_markup_mode="markdown",
)

DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan, and change nothing.")]
NoCheck = Annotated[bool, typer.Option("--no-check", help="Skip the preflight checks of what the configuration names.")]
Version = Annotated[
    str | None,
    typer.Argument(metavar="[VERSION]", help="A version or an alias; by default the champion, or the latest version."),
]


@deploy.command()
def serving(
    version: Version = None,
    dry_run: DryRun = False,
    no_check: NoCheck = False,
    agent: AgentFile = AGENT_FILE,
    config: ConfigFile = None,
) -> None:
    """Deploy a registered version to a Model Serving endpoint, and wait until it is ready.

    Examples:

        oneturn deploy serving --config configs/prod.yaml

        oneturn deploy serving challenger --dry-run
    """
    loaded = load(agent, config)

    from oneturn.deployment.databricks.model_serving import deploy_serving, plan_serving

    plan = plan_serving(loaded, version, check=not no_check)
    _print_lines(plan.lines())
    if dry_run:
        return
    deployment = deploy_serving(plan, echo)
    echo(f"Version {plan.version} answers at {deployment.url}")
    echo(f"Page:        {deployment.page}")
    echo(f"Review app:  {deployment.review_app}")
    echo(f"Query it:    {_query_command(loaded, deployment.url)}")
    echo("Roll back:   oneturn rollback")


@deploy.command()
def app(
    dry_run: DryRun = False,
    no_check: NoCheck = False,
    agent: AgentFile = AGENT_FILE,
    config: ConfigFile = None,
) -> None:
    """Deploy the agent of this folder to a Databricks App, and wait until it runs.

    Examples:

        oneturn deploy app --config configs/prod.yaml

        oneturn deploy app --dry-run
    """
    loaded = load(agent, config)

    from oneturn.deployment.databricks.apps import deploy_app, plan_app

    plan = plan_app(loaded, check=not no_check)
    _print_lines(plan.lines())
    if dry_run:
        return
    deployment = deploy_app(plan, echo)
    echo(f"The app {plan.name} answers at {deployment.url}")
    echo(f"Query it:   {_query_command(loaded, deployment.url)}")
    echo("Roll back:  oneturn rollback --app")


@deploy.command()
def bundle(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="The output folder.")] = Path("build/bundle"),
    agent: AgentFile = AGENT_FILE,
    dev: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="The configuration of the target dev; by default configs/staging.yaml, if any."
        ),
    ] = None,
    prod: Annotated[Path, typer.Option(metavar="PATH", help="The configuration of the target prod.")] = PRODUCTION,
    dry_run: DryRun = False,
) -> None:
    """Write a Declarative Automation Bundle for CI/CD: a release job and an app, for development and production.

    Examples:

        oneturn deploy bundle

        cd build/bundle && databricks bundle deploy --target prod && databricks bundle run release --target prod
    """
    dev = dev or (STAGING if STAGING.is_file() else prod)
    agents = {"dev": load(agent, dev), "prod": load(agent, prod)}

    from oneturn.deployment.databricks.bundle import bundle, write_bundle

    if dry_run:
        import yaml

        echo(yaml.safe_dump(bundle(agents), sort_keys=False))
        return
    written = write_bundle(agents, folder)
    echo(f"Wrote {len(written)} files to {folder}. Next:")
    echo(f"  cd {folder} && databricks bundle validate --target prod")
    echo("  databricks bundle deploy --target prod && databricks bundle run release --target prod")
    echo("  databricks bundle run agent --target prod    # the app")


def _query_command(agent: Agent, url: str) -> str:
    """The command that sends the agent's example request."""
    request = agent.example_request()
    texts = [shlex.quote(item["content"]) for item in request["input"]]
    if "custom_inputs" in request:
        texts.append(f"--custom-inputs {shlex.quote(json.dumps(request['custom_inputs'], ensure_ascii=False))}")
    return " ".join(["oneturn", "query", url, *texts])


def _print_lines(lines: list[str]) -> None:
    for line in lines:
        echo(line)


def rollback(
    version: Annotated[
        str | None, typer.Argument(metavar="[VERSION]", help="The target version; by default the previous one.")
    ] = None,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="The reason, recorded on the replaced version.")] = "",
    app: Annotated[bool, typer.Option("--app", help="Roll back the Databricks App, not the endpoint.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan, and change nothing.")] = False,
    agent: AgentFile = AGENT_FILE,
    config: ConfigFile = None,
) -> None:
    """Move the endpoint's traffic and the alias back to the previous version, which still runs, within seconds.

    Examples:

        oneturn rollback --reason "version 7 invents prices"

        oneturn rollback 5 --dry-run

        oneturn rollback --app
    """
    if app:
        _roll_back_app(agent, config, dry_run)
        return
    if not (dry_run or reason.strip()):
        raise typer.BadParameter("pass a reason; it is recorded on the replaced version.", param_hint="--reason")
    loaded = load(agent, config)

    from oneturn.deployment.databricks.rollback import plan_rollback, roll_back

    plan = plan_rollback(loaded, version)
    for line in plan.lines():
        echo(line)
    if not dry_run:
        roll_back(plan, reason, echo)
        echo(f"Version {plan.target} answers.")


def _roll_back_app(agent: Path, config: Path | None, dry_run: bool) -> None:
    loaded = load(agent, config)

    from oneturn.deployment.databricks.rollback import plan_app_rollback, roll_back_app

    plan = plan_app_rollback(loaded)
    for line in plan.lines():
        echo(line)
    if not dry_run:
        roll_back_app(plan)
        echo("The app runs.")


def log(
    register: Annotated[
        bool, typer.Option("--register", help="Register the model under the configured name, as a new version.")
    ] = False,
    alias: Annotated[str | None, typer.Option(metavar="NAME", help="The alias of the registered version.")] = None,
    agent: AgentFile = AGENT_FILE,
    config: ConfigFile = None,
) -> None:
    """Log the agent as an MLflow model: code, configuration, compiled program, pinned requirements.

    Examples:

        oneturn log

        oneturn log --register --alias challenger --config configs/prod.yaml
    """
    loaded = load(agent, config)

    from oneturn.config.tracking import located, without_credentials
    from oneturn.deployment.model_logging import log_model

    logged = log_model(loaded, register=register, alias=alias)
    settings = loaded.config.mlflow
    store = located(settings.tracking_uri, loaded.root)
    echo(f"Logged {logged.model_uri} in {without_credentials(store)} (run {logged.run_id})")
    if logged.registered_version is not None:
        suffix = f", {alias}" if alias else ""
        echo(f"Registered as version {logged.registered_version} of {settings.model_name}{suffix}")
        if settings.tracking_uri.startswith("databricks"):
            echo(f"Deploy it: oneturn deploy serving {logged.registered_version}")
    variable = (
        "" if store == settings.tracking_uri else f"MLFLOW_TRACKING_URI={shlex.quote(without_credentials(store))} "
    )
    echo(f"Serve it:  {variable}oneturn serve --model {logged.model_uri}")
    echo(f'Query it:  oneturn query http://127.0.0.1:{loaded.config.serve.port} "…"')


def promote(
    version: Annotated[
        int | None, typer.Argument(metavar="[VERSION]", min=1, help="The registered version; by default the latest.")
    ] = None,
    split: Annotated[str, typer.Option(metavar="NAME", help="The examples to compare on; never test.")] = "dev",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Compare without moving the alias.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Move the alias even if the rule fails.")] = False,
    reason: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The reason, which is recorded; required with --force.")
    ] = None,
    agent: AgentFile = AGENT_FILE,
    config: ConfigFile = None,
) -> None:
    """Make a registered version the champion if it is better in a paired comparison on the same examples.

    Moves the alias if the configured rule holds; otherwise the exit code is 1.

    Examples:

        oneturn promote

        oneturn promote 7 --dry-run

        oneturn promote 7 --force --reason "version 6 gives an outdated address"
    """
    if force and not (reason or "").strip():
        raise typer.BadParameter("pass --reason; it is recorded on the version.", param_hint="--force")
    loaded = load(agent, config)

    from oneturn.deployment.promotion import promote

    promotion = promote(
        loaded,
        version,
        split=split,
        force=force,
        reason=reason,
        dry_run=dry_run,
        on_progress=lambda line: echo(line, err=True),
    )
    console = build_console()
    if promotion.result is not None:
        console.print(promotion.result)
    else:
        console.out(promotion.verdict)
    subject = f"Version {promotion.version} of {promotion.name}"
    if promotion.moved:
        console.out(
            f"{subject} is the {promotion.alias} now{', by force' if promotion.forced else ''}; "
            f"before: {promotion.replaced or 'none'}."
        )
    elif promotion.result is not None and not promotion.result.passed:
        console.out(f'{subject} isn\'t the {promotion.alias}. To move the alias anyway: --force --reason "…"')
        raise typer.Exit(1)
    elif promotion.replaced != promotion.version:
        console.out(f"{subject} could become the {promotion.alias}.")
