"""``oneturn data``: the examples that an agent is taught and judged by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from oneturn.cli.options import AGENT_FILE, AgentFile, ConfigFile, load

data = typer.Typer(
    name="data",
    help="Check the agent's examples, and find new ones in what it was asked.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@data.command()
def check(
    results: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="What `oneturn evaluate --output` wrote; may be given several times."),
    ] = None,
    similarity: Annotated[
        float, typer.Option(min=0.1, max=1, help="How similar questions are that count as nearly the same.")
    ] = 0.7,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail it too.")] = False,
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Write the report as JSON; - for the terminal.")
    ] = None,
    agent: AgentFile = AGENT_FILE,
    config: ConfigFile = None,
) -> None:
    """Check the examples: their schema, duplicates and leaks between splits, how labels are mixed. Asks no LM.

    Exit code 0: no error; 1: errors.

    Examples:

        oneturn data check

        oneturn data check --results uncompiled.jsonl --results compiled.jsonl

        oneturn data check --strict --json report.json
    """
    if json_file not in (None, "-") and not Path(str(json_file)).absolute().parent.is_dir():
        raise typer.BadParameter(f"there is no folder for {json_file}.", param_hint="--json")
    loaded = load(agent, config)

    from rich.console import Console

    from oneturn.cli.data_report import show
    from oneturn.examples.check import check_data

    report = check_data(loaded, results=results or (), similarity=similarity)
    text = json.dumps(report.to_dict(), indent=2, ensure_ascii=False, default=str)
    if json_file == "-":
        typer.echo(text)
    else:
        show(report, Console())
        if json_file is not None:
            Path(json_file).write_text(text + "\n", encoding="utf-8")
    if not report.passed(strict):
        raise typer.Exit(1)
