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

    from oneturn.cli.tables import show_data_report
    from oneturn.datasets.check import check_data

    report = check_data(loaded, results=results or (), similarity=similarity)
    text = json.dumps(report.to_dict(strict), indent=2, ensure_ascii=False)
    if json_file == "-":
        typer.echo(text)
    else:
        show_data_report(report, Console(), strict)
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

    from oneturn.datasets.from_traces import from_traces
    from oneturn.datasets.review import CANDIDATES, TO_LABEL

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

    from oneturn.datasets.review import accept

    taken = accept(loaded, ids or (), to)
    typer.echo(f"{len(taken)} moved to {to}: {', '.join(taken) or 'none'}. Check them: oneturn data check")


def from_inference_table(
    table: Annotated[Path, typer.Argument(metavar="FILE", help="The table, as .parquet, .csv or .jsonl.")],
    output: Annotated[Path, typer.Option(metavar="FILE", help="Where to write the rows, .jsonl.")],
    question: Annotated[str, typer.Option(metavar="NAME", help="What the program calls the question.")] = "question",
    failed: Annotated[bool, typer.Option("--failed", help="Only what had no answer.")] = False,
    agent: AgentFile = AGENT_FILE,
    config: ConfigFile = None,
) -> None:
    """Turn what a deployed agent was asked, as Databricks' inference table keeps it, into rows to evaluate on.

    They are redacted as `oneturn data from-traces` does it, which makes examples of what people have judged.

    Examples:

        oneturn data from-inference-table desk_payload.parquet --output asked.jsonl

        oneturn evaluate --data asked.jsonl
    """
    rules = load(agent, config).config.data.redact

    from oneturn.deployment.databricks.inference_table import read_inference_table, redacted, write_rows

    rows, counts = redacted(read_inference_table(table, question=question), rules)
    if failed:
        rows = rows[rows["error"].notna()]
    write_rows(rows, output)
    errors = int(rows["error"].notna().sum())
    typer.echo(f"Wrote {len(rows)} rows to {output}, {errors} without an answer.")
    for rule, count in counts.items():
        typer.echo(f"  redacted: {count} × {rule}")
    typer.echo(f"Evaluate on them:  oneturn evaluate --data {output}")
