"""``oneturn data from-inference-table``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from oneturn.cli.options import AGENT_FILE, AgentFile, ConfigFile, load


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

    from oneturn.databricks.inference_table import read_inference_table, redacted, write_rows

    rows, counts = redacted(read_inference_table(table, question=question), rules)
    if failed:
        rows = rows[rows["error"].notna()]
    write_rows(rows, output)
    errors = int(rows["error"].notna().sum())
    typer.echo(f"Wrote {len(rows)} rows to {output}, {errors} without an answer.")
    for rule, count in counts.items():
        typer.echo(f"  redacted: {count} × {rule}")
    typer.echo(f"Evaluate on them:  oneturn evaluate --data {output}")
