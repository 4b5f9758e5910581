"""``oneturn compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from oneturn.cli.options import AGENT_FILE, AgentFile, ConfigFile, load


def compare(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help="Rows that `oneturn evaluate --output` wrote.")],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="Rows of the same examples.")],
    gate: Annotated[bool, typer.Option("--gate", help="Exit code 1 if the configured rule doesn't hold.")] = False,
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Write it as JSON; - for the terminal.")
    ] = None,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it as Markdown, too.")] = None,
    agent: AgentFile = AGENT_FILE,
    config: ConfigFile = None,
) -> None:
    """Compare two evaluations of the same examples, pair by pair: the difference with its interval, and what flipped.

    Examples:

        oneturn compare uncompiled.jsonl compiled.jsonl

        oneturn compare yesterday.parquet today.parquet --gate --markdown comment.md
    """
    loaded = load(agent, config)

    from rich.console import Console

    from oneturn.compiling.gate import compare
    from oneturn.evaluation import Evaluation

    found = compare(
        Evaluation.read(before), Evaluation.read(after), loaded.config.gate, names=(before.stem, after.stem)
    )
    if json_file == "-":
        typer.echo(found.to_json())
    else:
        Console().print(found)
        if json_file is not None:
            Path(json_file).write_text(found.to_json() + "\n", encoding="utf-8")
    if markdown is not None:
        markdown.write_text(found.to_markdown(), encoding="utf-8")
    if gate and not found.passed:
        raise typer.Exit(1)
