"""``oneturn judge``."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from oneturn.cli.options import AGENT_FILE, AgentFile, ConfigFile, load

app = typer.Typer(name="judge", help="See how far an LM judge can be trusted.", no_args_is_help=True)


class Judge(str, Enum):
    """What is judged."""

    groundedness = "groundedness"
    relevance = "relevance"
    correctness = "correctness"
    guidelines = "guidelines"


@app.callback()
def judge() -> None:
    """What the commands about judges share."""


@app.command()
def calibrate(
    data: Annotated[
        Path, typer.Argument(metavar="FILE", help="Answers that people have judged: .jsonl, .csv or .parquet.")
    ],
    judge: Annotated[Judge, typer.Option(help="Which judge.")] = Judge.groundedness,
    label: Annotated[str, typer.Option(metavar="NAME", help="The field with what people said.")] = "label",
    model: Annotated[
        str | None,
        typer.Option(metavar="URI", help="The judge's LM, such as openai:/gpt-4.1-mini, if not judge.model."),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Answers at the same time.")] = 4,
    gate: Annotated[bool, typer.Option("--gate", help="Exit code 1 if the judge can't be trusted.")] = False,
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    agent: AgentFile = AGENT_FILE,
    config: ConfigFile = None,
) -> None:
    """Compare an LM judge with people: accuracy, Cohen's kappa with its interval, and who said what.

    Each row has question, answer, label (true or false) and, for groundedness, context. A judge whose kappa is below
    judge.min_kappa of the configuration is flagged.

    Examples:

        oneturn judge calibrate labelled.jsonl

        oneturn judge calibrate labelled.jsonl --judge relevance --model openai:/gpt-4.1-mini --gate
    """
    loaded = load(agent, config).config.judge

    from rich.console import Console

    from oneturn.errors import ConfigError
    from oneturn.evaluation import scorers

    uri = model or loaded.model
    if uri is None:
        raise ConfigError("No judge is configured: set judge.model, or give --model openai:/gpt-4.1-mini.")
    made = {
        Judge.groundedness: lambda: scorers.groundedness(uri),
        Judge.relevance: lambda: scorers.relevance(uri),
        Judge.correctness: lambda: scorers.correctness(uri),
        Judge.guidelines: lambda: scorers.guidelines(loaded.guidelines, uri),
    }[judge]()
    found = scorers.calibrate_judge(made, data, label=label, min_kappa=loaded.min_kappa, threads=threads)
    if json:
        typer.echo(found.to_json())
    else:
        Console().print(found)
    if gate and not found.trusted:
        raise typer.Exit(1)
