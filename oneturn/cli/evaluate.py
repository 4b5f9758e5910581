"""``oneturn evaluate``."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from oneturn.cli.options import AGENT_FILE, AgentFile, ConfigFile, load
from oneturn.cli.report import check_page

SUFFIXES = (".jsonl", ".csv", ".parquet")


class Split(str, Enum):
    """What can be evaluated on."""

    train = "train"
    dev = "dev"
    test = "test"


def evaluate(
    target: Annotated[
        str | None,
        typer.Argument(metavar="[TARGET]", help="A URL, or a models:/ URI; the agent otherwise."),
    ] = None,
    split: Annotated[Split, typer.Option(help="Which examples.")] = Split.test,
    data: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Rows of your own, .jsonl, .csv or .parquet, not a split.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many examples of the split.")] = None,
    uncompiled: Annotated[bool, typer.Option("--uncompiled", help="The program as declared, not compiled.")] = False,
    output: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Write a row an example: .jsonl, .csv or .parquet.")
    ] = None,
    report: Annotated[Path | None, typer.Option(metavar="PATH", help="Write a page to look at: .html.")] = None,
    baseline: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Rows of the same examples, to compare with in the report.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over, instead of going on where it was.")] = False,
    repeats: Annotated[
        int, typer.Option(min=1, help="Try each example so often, and tell pass^k: how likely k tries all pass.")
    ] = 1,
    log: Annotated[bool, typer.Option("--log", help="Log figures, report and rows as an MLflow run.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Rows at the same time.")] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="ONETURN_API_KEY", help="The token to send to a URL, if it wants one.")
    ] = None,
    agent: AgentFile = AGENT_FILE,
    config: ConfigFile = None,
) -> None:
    """Evaluate the agent, or a served or logged one: score with its 95% interval, by category, and what it cost.

    An LM judges groundedness and relevance, too, if one is configured (judge.model); if not, their columns say so.

    With --output, a run that was interrupted, or killed, goes on where it was when the same command is given again.

    Examples:

        oneturn evaluate

        oneturn evaluate --split dev --limit 20 --uncompiled

        oneturn evaluate --data questions.parquet --output rows.parquet --threads 16

        oneturn evaluate --report report.html --baseline rows-of-last-week.jsonl

        oneturn evaluate --split dev --repeats 5 --log

        oneturn evaluate http://127.0.0.1:8000 --split dev
    """
    for path, option in ((output, "--output"), (data, "--data")):
        if path is not None and path.suffix not in SUFFIXES:
            raise typer.BadParameter(f"{path} must end in .jsonl, .csv or .parquet.", param_hint=option)
    check_page(report, "--report")
    if baseline is not None and report is None:
        raise typer.BadParameter(
            "A baseline is compared with in the report: add --report FILE.html.", param_hint="--baseline"
        )
    loaded = load(agent, config)

    from rich.console import Console

    from oneturn.batch import evaluate
    from oneturn.cli.tables import beside, comparison
    from oneturn.evaluation import Evaluation
    from oneturn.reporting import write_report
    from oneturn.reporting.mlflow_report import log_evaluation
    from oneturn.scorers import judges

    before = None if baseline is None else Evaluation.read(baseline)

    name = f"{target or loaded.name} on {data or split.value}"
    options: dict[str, Any] = {
        "repeats": repeats,
        "output": output,
        "fresh": fresh,
        "threads": threads or loaded.config.compile.threads,
    }
    rows = data if data is not None else loaded.examples(split.value)[:limit]
    program = loaded.program(compiled=not uncompiled) if target is None else target
    lm = loaded.lm() if target is None else None
    metrics: dict[str, Any] = {"score": loaded.metric, **{judge.name: judge for judge in judges(loaded.config.judge)}}
    found = evaluate(program, rows, metrics, lm=lm, api_key=api_key, **options)
    console = Console()
    for table in (comparison({name: found}), *beside(found)):
        console.print(table)
    for column, (unjudged, reason) in found.not_judged().items():
        console.out(f"{column}: {unjudged} of {len(found.rows)} rows. {reason}")
    if output is not None:
        console.out(f"Rows: {output}")
    if report is not None:
        names = ("baseline" if baseline is None else baseline.stem, name)
        write_report(report, found, before, title=name, names=names)
        console.out(f"The page: {report}")
    if log:
        console.out(f"MLflow run: {log_evaluation(loaded, found, name)}")
