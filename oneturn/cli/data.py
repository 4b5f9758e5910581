"""``oneturn data``: the examples for compiling and evaluating an agent."""

from __future__ import annotations

import contextlib
import json
import threading
from pathlib import Path
from typing import Annotated, Any

import typer

from oneturn.cli.options import AGENT_FILE, AgentFile, ConfigFile, build_console, check_folders, echo, load

data = typer.Typer(
    name="data",
    help="Check the agent's examples, and collect new ones from traces.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@data.command()
def check(
    results: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Rows of `oneturn evaluate --output`; repeatable."),
    ] = None,
    similarity: Annotated[
        float, typer.Option(min=0.1, max=1, help="The similarity above which questions are near-duplicates.")
    ] = 0.7,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on warnings too.")] = False,
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Write the report as JSON; - for stdout.")
    ] = None,
    agent: AgentFile = AGENT_FILE,
    config: ConfigFile = None,
) -> None:
    """Check the examples: schema, duplicates, leaks between splits, and label balance. Calls no LM.

    Exit code 0: no errors; 1: errors.

    Examples:

        oneturn data check

        oneturn data check --results uncompiled.jsonl --results compiled.jsonl

        oneturn data check --strict --json report.json
    """
    check_folders({"--json": json_file})
    loaded = load(agent, config)

    from oneturn.cli.tables import show_data_report
    from oneturn.datasets.check import check_data

    report = check_data(loaded, results=results or (), similarity=similarity)
    text = json.dumps(report.to_dict(strict), indent=2, ensure_ascii=False)
    if json_file == "-":
        typer.echo(text)
    else:
        show_data_report(report, build_console(), strict)
        if json_file is not None:
            Path(json_file).write_text(text + "\n", encoding="utf-8")
    if not report.passed(strict):
        raise typer.Exit(1)


@data.command()
def schema(
    output: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Write it to a file; columns of your own in it are kept."),
    ] = None,
    agent: AgentFile = AGENT_FILE,
    config: ConfigFile = None,
) -> None:
    """Print a JSON schema of examples with the fields of the agent's signature, to start from.

    Examples:

        oneturn data schema

        oneturn data schema --output data/examples/schema.json
    """
    check_folders({"--output": output})
    loaded = load(agent, config)

    from oneturn.core.splits import read_schema_file
    from oneturn.datasets.schema import example_schema, keep_columns
    from oneturn.programs import as_program

    contents = example_schema(as_program(loaded.build()).signature)
    existing = None if output is None else read_schema_file(output)
    kept = [] if existing is None else keep_columns(contents, existing)
    text = json.dumps(contents, indent=2, ensure_ascii=False)
    if output is None:
        typer.echo(text)
        return
    output.write_text(text + "\n", encoding="utf-8")
    echo(f"Schema: {output}")
    if kept:
        echo(f"Kept, because the signature has no such field: {', '.join(kept)}. Remove what your examples don't have.")


@data.command()
def from_traces(
    max_traces: Annotated[int | None, typer.Option("--max", min=1, help="Read at most N traces, newest first.")] = None,
    agent: AgentFile = AGENT_FILE,
    config: ConfigFile = None,
) -> None:
    """Create redacted candidate examples from MLflow traces with human feedback, one per question.

    Writes candidates.jsonl, and to_label.jsonl for those without a right answer. Review them with
    `oneturn data review`, or edit both files and accept candidates with `oneturn data accept`.

    Examples:

        oneturn data from-traces

        oneturn data from-traces --max 1000 --config configs/prod.yaml
    """
    loaded = load(agent, config)

    from oneturn.datasets.from_traces import from_traces
    from oneturn.datasets.review import CANDIDATES, TO_LABEL

    result = from_traces(loaded, max_traces=max_traces)
    folder = loaded.examples_folder
    echo(f"{len(result.candidates)} new candidates: {folder / CANDIDATES}")
    echo(f"{len(result.to_label)} new ones without a right answer: {folder / TO_LABEL}")
    echo(f"{result.known} exist already, as an example or a candidate")
    for ident, other in result.near.items():
        echo(f"  {ident} is a near-duplicate of {other}")
    for rule, count in result.redacted.items():
        echo(f"  redacted: {count} × {rule}")
    for reason, count in result.skipped.items():
        echo(f"  skipped: {count}, {reason}")


@data.command()
def accept(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="The ids of candidates.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All candidates.")] = False,
    to: Annotated[str, typer.Option(metavar="SPLIT", help="train or dev; never test.")] = "train",
    agent: AgentFile = AGENT_FILE,
    config: ConfigFile = None,
) -> None:
    """Move reviewed candidates into a split, if they match the schema and the agent's loader accepts them.

    Examples:

        oneturn data accept trace-4f1c2a9b

        oneturn data accept --all --to dev
    """
    if bool(ids) == everything:
        raise typer.BadParameter("name candidates, or pass --all.", param_hint="ID")
    loaded = load(agent, config)

    from oneturn.datasets.review import accept

    accepted = accept(loaded, ids or (), to)
    echo(f"{len(accepted)} moved to {to}: {', '.join(accepted) or 'none'}. Next: oneturn data check")


@data.command()
def review(
    to: Annotated[str, typer.Option(metavar="SPLIT", help="train or dev; never test.")] = "train",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port on 127.0.0.1; 0 for any free one.")] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")] = True,
    agent: AgentFile = AGENT_FILE,
    config: ConfigFile = None,
) -> None:
    """Review candidates on a page, one by one: accept, edit or reject each, until Ctrl-C.

    Accepted ones are appended to the split's file; rejected ones aren't collected again.

    Examples:

        oneturn data review

        oneturn data review --to dev --no-browser
    """
    if to not in ("train", "dev"):
        raise typer.BadParameter(f"{to!r} isn't train or dev.", param_hint="--to")
    loaded = load(agent, config)

    from oneturn.datasets.candidate_review import CandidateReview
    from oneturn.serving.page.review import ReviewApplication
    from oneturn.serving.server import running_application

    app = ReviewApplication(CandidateReview(loaded, to))
    with running_application(app, port=port) as address:
        url = f"{address}/#{app.token}"
        echo(f"Review the candidates at {url} . Ctrl-C stops.")
        if browser:
            typer.launch(url)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


def from_inference_table(
    table: Annotated[Path, typer.Argument(metavar="FILE", help="The table, as .parquet, .csv or .jsonl.")],
    output: Annotated[Path, typer.Option(metavar="FILE", help="The file for the rows: .jsonl, .csv or .parquet.")],
    question: Annotated[str, typer.Option(metavar="NAME", help="The program's input for the question.")] = "question",
    failed: Annotated[bool, typer.Option("--failed", help="Only requests without an answer.")] = False,
    agent: AgentFile = AGENT_FILE,
    config: ConfigFile = None,
) -> None:
    """Convert the requests in a Databricks inference table to redacted rows for evaluation.

    Redaction is the same as in `oneturn data from-traces`, which creates examples from human feedback.

    Examples:

        oneturn data from-inference-table mine_payload.parquet --output asked.jsonl

        oneturn evaluate --data asked.jsonl
    """
    rules = load(agent, config).config.data.redact

    from oneturn.core.serialization import jsonable
    from oneturn.datasets import write_rows
    from oneturn.deployment.databricks.inference_table import FEEDBACK, error_of, inference_rows, redact_records

    rows, counts = redact_records(inference_rows(table, question), rules)
    asked = [row for row in rows if error_of(row) != FEEDBACK]
    chosen = [row for row in asked if error_of(row) is not None or not failed]

    def as_json(value: Any) -> Any:
        return value.isoformat() if hasattr(value, "isoformat") else jsonable(value)

    write_rows(output, [{name: as_json(value) for name, value in row.items()} for row in chosen])
    errors = sum(error_of(row) is not None for row in chosen)
    echo(f"Wrote {len(chosen)} rows to {output}, {errors} without an answer.")
    if len(asked) < len(rows):
        echo(f"  {len(rows) - len(asked)} rows of feedback skipped; see: oneturn data from-traces")
    for rule, count in counts.items():
        echo(f"  redacted: {count} × {rule}")
    echo(f"Correct the answers, which are the agent's own, then:  oneturn evaluate --data {output}")
