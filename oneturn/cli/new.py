"""``oneturn new``."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from oneturn.cli.options import echo


class Kind(str, Enum):
    """The kinds of agents."""

    react = "react"
    extract = "extract"


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The agent's name, and that of its new folder.")],
    kind: Annotated[
        Kind, typer.Option(help="react: conversational, with tools; extract: a text in, typed facts out.")
    ] = Kind.react,
    lm: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="The LM, such as databricks/ENDPOINT; prompted for at a terminal."),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="MODULE:NAME", help="Wrap a dspy.Module of this folder, such as faq:program."),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="The project's folder; by default NAME, or this one with --from."),
    ] = None,
) -> None:
    """Write a small project with an agent that runs at once. Overwrites nothing.

    The project has tools, examples, a metric, tests, notebooks and configurations, to replace by your own.

    Examples:

        oneturn new travel --lm openai/gpt-4o-mini

        oneturn new invoices --kind extract --lm databricks/databricks-claude-sonnet-4

        oneturn new travel --lm local/1.5B

        oneturn new faq --from faq_module:program --lm openai/gpt-4o-mini
    """
    from oneturn.scaffold import wrap_module, write_project

    if source is not None:
        written, existing = wrap_module(folder or Path(), name, source, lm=lm or _ask_for_lm())
        echo(f"Wrote {len(written)} files around {source}.")
        for path in existing:
            echo(f"  {path} exists and stays as it is")
        echo("Next: add examples to data/examples, then: oneturn data check, oneturn ask, oneturn evaluate")
        return
    place = folder or Path(name)
    written = write_project(place, name, kind=kind.value, lm=lm or _ask_for_lm())
    echo(f"Wrote {len(written)} files to {place}. Next:")
    echo(f"  cd {place}")
    echo("  make setup test   # or, in this environment: pip install pytest && pytest")
    echo("  oneturn doctor    # is the LM reachable?")
    echo("  make ask")


def _ask_for_lm() -> str:
    """Let a person choose the LM.

    Raises:
        typer.BadParameter: there is no terminal.
    """
    from oneturn.lm.providers import LM_CHOICES

    if not _is_terminal():
        models = ", ".join(choice.default for choice in LM_CHOICES)
        raise typer.BadParameter(f"which LM? Pass a DSPy model string, such as {models}.", param_hint="--lm")
    for number, choice in enumerate(LM_CHOICES, start=1):
        echo(f"  {number}  {choice.label}")
    choices = {str(number): choice for number, choice in enumerate(LM_CHOICES, start=1)}
    while (chosen := str(typer.prompt("Which LM", default="1")).strip()) not in choices:
        echo(f"Enter a number from 1 to {len(choices)}.")
    return str(typer.prompt("Its name", default=choices[chosen].default))


def _is_terminal() -> bool:
    return sys.stdin.isatty()
