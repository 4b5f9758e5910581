"""``oneturn data from-inference-table``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def from_inference_table(
    table: Annotated[Path, typer.Argument(metavar="FILE", help="The table, as .parquet, .csv or .jsonl.")],
    output: Annotated[Path, typer.Option(metavar="FILE", help="Where to write the rows, .jsonl.")],
    question: Annotated[str, typer.Option(metavar="NAME", help="What the program calls the question.")] = "question",
    failed: Annotated[bool, typer.Option("--failed", help="Only what had no answer.")] = False,
) -> None:
    """Turn what a deployed agent was asked, as Databricks' inference table keeps it, into rows to evaluate on.

    They hold what users wrote: look at them before they go anywhere. For traces, which hold tool calls and people's
    verdicts too: `oneturn data from-traces`.

    Examples:

        oneturn data from-inference-table desk_payload.parquet --output asked.jsonl

        oneturn evaluate --data asked.jsonl
    """
    from oneturn.databricks.inference_table import read_inference_table, write_rows

    rows = read_inference_table(table, question=question)
    if failed:
        rows = rows[rows["error"].notna()]
    write_rows(rows, output)
    errors = int(rows["error"].notna().sum())
    typer.echo(f"Wrote {len(rows)} rows to {output}, {errors} without an answer.")
    typer.echo(f"Evaluate on them:  oneturn evaluate --data {output}")
