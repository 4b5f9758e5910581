"""``oneturn evaluate``."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from oneturn.cli.options import AGENT_FILE, AgentFile, ConfigFile, load


class Split(str, Enum):
    """What can be evaluated on."""

    train = "train"
    dev = "dev"
    test = "test"


def evaluate(
    split: Annotated[Split, typer.Option(help="Which examples.")] = Split.test,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many.")] = None,
    uncompiled: Annotated[bool, typer.Option("--uncompiled", help="The program as declared, not compiled.")] = False,
    output: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Write a row an example: .jsonl, .csv or .parquet.")
    ] = None,
    agent: AgentFile = AGENT_FILE,
    config: ConfigFile = None,
) -> None:
    """Evaluate the agent on its examples: score with its 95% interval, by category, and what it cost.

    Examples:

        oneturn evaluate

        oneturn evaluate --split dev --limit 20 --uncompiled

        oneturn evaluate --output rows.parquet
    """
    if output is not None and output.suffix not in (".jsonl", ".csv", ".parquet"):
        raise typer.BadParameter(f"{output} must end in .jsonl, .csv or .parquet.", param_hint="--output")
    loaded = load(agent, config)

    from rich.console import Console

    from oneturn.batch import evaluate
    from oneturn.cli.tables import by_category, comparison, write

    program = loaded.program(compiled=not uncompiled)
    examples = loaded.examples(split.value)[:limit]
    found = evaluate(program, examples, loaded.metric, lm=loaded.lm(), threads=loaded.config.compile.threads)
    console = Console()
    console.print(comparison({f"{loaded.name} on {split.value}": found}))
    if "category" in found.rows:
        console.print(by_category(found))
    if output is not None:
        write(found.rows, output)
        console.out(f"Rows: {output}")
