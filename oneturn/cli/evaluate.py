"""``oneturn evaluate``."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from oneturn.cli.options import AGENT_FILE, AgentFile, ConfigFile, load


def report(
    rows: Annotated[Path, typer.Argument(metavar="ROWS", help="What oneturn evaluate --output wrote.")],
    output: Annotated[Path, typer.Option(metavar="FILE", help="The page, .html.")],
    baseline: Annotated[
        Path | None, typer.Option(metavar="ROWS", help="Rows of the same examples, to compare with.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="What the page is called; the name of the rows otherwise.")] = None,
    show: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Write an evaluation's rows as one HTML page: figures, plots, what changed, each row with its steps.

    Examples:

        oneturn report rows.jsonl --output report.html --open

        oneturn report new.parquet --baseline old.parquet --output report.html
    """
    check_page(output, "--output")

    from oneturn.evaluation.report import write_report
    from oneturn.evaluation.result import Evaluation

    after = Evaluation.read(rows)
    before = None if baseline is None else Evaluation.read(baseline)
    names = ("baseline" if baseline is None else baseline.stem, rows.stem)
    written = write_report(output, after, before, title=title or rows.stem, names=names)
    typer.echo(f"The page: {written}")
    if show:
        typer.launch(str(written))


def check_page(path: Path | None, option: str) -> None:
    """Refuse a page that isn't called one: it would be written over something else."""
    if path is not None and path.suffix not in (".html", ".htm"):
        raise typer.BadParameter(f"{path} must end in .html.", param_hint=option)


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

    from oneturn.cli.tables import beside, comparison
    from oneturn.evaluation import evaluate
    from oneturn.evaluation.report import write_report
    from oneturn.evaluation.report.mlflow import log_evaluation
    from oneturn.evaluation.result import Evaluation
    from oneturn.evaluation.scorers import judges

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

    from oneturn.evaluation.comparison import compare
    from oneturn.evaluation.result import Evaluation

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
