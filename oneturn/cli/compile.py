"""``oneturn compile``."""

from __future__ import annotations

from typing import Annotated

import typer

from oneturn.cli.options import AGENT_FILE, AgentFile, ConfigFile, load


def compile(
    recipe: Annotated[
        str | None, typer.Option(metavar="NAME", help="The recipe; the configured one otherwise.")
    ] = None,
    agent: AgentFile = AGENT_FILE,
    config: ConfigFile = None,
) -> None:
    """Compile the agent's prompts, and measure what that brought on the development split.

    A run that was interrupted goes on where it was when the same command is given again.

    Examples:

        oneturn compile

        oneturn compile --recipe bootstrap
    """
    loaded = load(agent, config)

    from rich.console import Console

    from oneturn.cli.tables import comparison
    from oneturn.compilation import compile

    done = compile(loaded, recipe=recipe)
    console = Console()
    console.print(comparison({"uncompiled": done.before, "compiled": done.after}))
    spend = done.manifest.spend
    console.out(f"Spent {spend['lm_calls']:.0f} LM calls in {spend['seconds']:.0f} s on {done.manifest.lm}.")
    console.out(f"The compiled program: {done.path}")
