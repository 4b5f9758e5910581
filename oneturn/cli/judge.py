"""``oneturn judge``."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from oneturn.cli.options import AGENT_FILE, AgentFile, ConfigFile, build_console, load

app = typer.Typer(name="judge", help="Measure the agreement of an LM judge with people.", no_args_is_help=True)


class Judge(str, Enum):
    """The judges."""

    groundedness = "groundedness"
    relevance = "relevance"
    correctness = "correctness"
    guidelines = "guidelines"


@app.callback()
def judge() -> None:
    """Options of all judge commands."""


@app.command()
def calibrate(
    data: Annotated[Path, typer.Argument(metavar="FILE", help="Answers labelled by people: .jsonl, .csv or .parquet.")],
    judge: Annotated[Judge, typer.Option(help="The judge.")] = Judge.groundedness,
    label: Annotated[str, typer.Option(metavar="NAME", help="The field with the label.")] = "label",
    model: Annotated[
        str | None,
        typer.Option(metavar="URI", help="The judge's LM, such as openai:/gpt-4.1-mini; by default judge.model."),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Concurrent calls.")] = 4,
    gate: Annotated[bool, typer.Option("--gate", help="Exit with 1 if the judge can't be trusted.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    agent: AgentFile = AGENT_FILE,
    config: ConfigFile = None,
) -> None:
    """Compare an LM judge with people: accuracy, Cohen's kappa with its interval, and the confusion matrix.

    Each row has question, answer, label (true or false) and, for groundedness, context. A judge whose kappa is below
    judge.min_kappa of the configuration is flagged.

    Examples:

        oneturn judge calibrate labelled.jsonl

        oneturn judge calibrate labelled.jsonl --judge relevance --model openai:/gpt-4.1-mini --gate
    """
    loaded = load(agent, config).config.judge

    from oneturn.errors import ConfigError
    from oneturn.evaluation import scorers

    uri = model or loaded.model
    if uri is None:
        raise ConfigError("No judge is configured: set judge.model, or pass --model openai:/gpt-4.1-mini.")
    scorer = {
        Judge.groundedness: lambda: scorers.groundedness(uri),
        Judge.relevance: lambda: scorers.relevance(uri),
        Judge.correctness: lambda: scorers.correctness(uri),
        Judge.guidelines: lambda: scorers.guidelines(loaded.guidelines, uri),
    }[judge]()
    calibration = scorers.calibrate_judge(scorer, data, label=label, min_kappa=loaded.min_kappa, threads=threads)
    if json:
        typer.echo(calibration.to_json())
    else:
        build_console().print(calibration)
    if gate and not calibration.trusted:
        raise typer.Exit(1)
