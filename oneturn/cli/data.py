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
    text = json.dumps(report.to_dict(strict), indent=2, ensure_ascii=False)
    if json_file == "-":
        typer.echo(text)
    else:
        show(report, Console(), strict)
        if json_file is not None:
            Path(json_file).write_text(text + "\n", encoding="utf-8")
    if not report.passed(strict):
        raise typer.Exit(1)


@data.command()
def from_traces(
    max_traces: Annotated[
        int | None, typer.Option("--max", min=1, help="Look at so many of the newest traces, of those at most.")
    ] = None,
    agent: AgentFile = AGENT_FILE,
    config: ConfigFile = None,
) -> None:
    """Make candidates of the MLflow traces that people have judged or corrected; redacted, each question once.

    They stand in candidates.jsonl, and those that still lack the right answer in to_label.jsonl. Read and edit them,
    then take them with `oneturn data accept`.

    Examples:

        oneturn data from-traces

        oneturn data from-traces --max 1000 --config configs/prod.yaml
    """
    loaded = load(agent, config)

    from oneturn.examples.candidates import CANDIDATES, TO_LABEL
    from oneturn.examples.traces import from_traces

    found = from_traces(loaded, max_traces=max_traces)
    folder = loaded.examples_folder
    typer.echo(f"{len(found.candidates)} new candidates: {folder / CANDIDATES}")
    typer.echo(f"{len(found.to_label)} new ones that lack the right answer: {folder / TO_LABEL}")
    typer.echo(f"{found.known} were there already, as an example or a candidate")
    for ident, other in found.near.items():
        typer.echo(f"  {ident} asks nearly what {other} asks")
    for rule, count in found.redacted.items():
        typer.echo(f"  redacted: {count} × {rule}")
    for reason, count in found.skipped.items():
        typer.echo(f"  left out: {count}, {reason}")


@data.command()
def accept(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="The candidates'.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All candidates.")] = False,
    to: Annotated[str, typer.Option(metavar="SPLIT", help="train, or dev; never test.")] = "train",
    agent: AgentFile = AGENT_FILE,
    config: ConfigFile = None,
) -> None:
    """Move candidates that you have read into a split: as they stand, if the schema and the agent's loader take them.

    Examples:

        oneturn data accept trace-4f1c2a9b

        oneturn data accept --all --to dev
    """
    if bool(ids) == everything:
        raise typer.BadParameter("name candidates, or give --all.", param_hint="ID")
    loaded = load(agent, config)

    from oneturn.examples.candidates import accept

    taken = accept(loaded, ids or (), to)
    typer.echo(f"{len(taken)} moved to {to}: {', '.join(taken) or 'none'}. Check them: oneturn data check")
