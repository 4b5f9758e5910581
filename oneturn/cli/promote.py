"""``oneturn promote``."""

from __future__ import annotations

from typing import Annotated

import typer

from oneturn.cli.options import AGENT_FILE, AgentFile, ConfigFile, load


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

    from oneturn.compiling.promotion import promote

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
