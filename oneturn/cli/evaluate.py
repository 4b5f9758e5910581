"""``oneturn evaluate``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oneturn.cli.options import (
    AGENT_FILE,
    AgentFile,
    ApprovalOption,
    ConfigFile,
    build_console,
    build_policy,
    check_folders,
    echo,
    load,
)

if TYPE_CHECKING:
    from oneturn.agent import Agent
    from oneturn.evaluation import Evaluation


def report(
    rows: Annotated[Path, typer.Argument(metavar="ROWS", help="Rows of oneturn evaluate --output.")],
    output: Annotated[Path, typer.Option(metavar="FILE", help="The HTML page to write.")],
    baseline: Annotated[
        Path | None, typer.Option(metavar="ROWS", help="Rows of the same examples to compare with.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="The title of the page; by default the name of the rows.")] = None,
    show: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Write an HTML report of an evaluation: metrics, plots, changes, and each row with its steps.

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
    page = write_report(output, after, before, title=title or rows.stem, names=names)
    echo(f"Page: {page}")
    if show:
        typer.launch(str(page))


def check_page(path: Path | None, option: str) -> None:
    """Reject a path that doesn't end in .html, which may be another file to keep."""
    if path is not None and path.suffix not in (".html", ".htm"):
        raise typer.BadParameter(f"{path} must end in .html.", param_hint=option)


def _check_used(unused: Mapping[str, tuple[str, bool]]) -> None:
    """Reject options that another one leaves without effect."""
    for option, (other, is_given) in unused.items():
        if is_given:
            raise typer.BadParameter(f"it has no effect with {other}; leave one of them out.", param_hint=option)


SUFFIXES = (".jsonl", ".csv", ".parquet")


class Split(str, Enum):
    """The splits of the examples."""

    train = "train"
    dev = "dev"
    test = "test"


def evaluate(
    target: Annotated[
        str | None,
        typer.Argument(metavar="[TARGET]", help="A URL or a models:/ URI; by default the agent."),
    ] = None,
    split: Annotated[Split | None, typer.Option(help="The split to evaluate on; by default the test split.")] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Your own rows instead of a split: .jsonl, .csv or .parquet.")
    ] = None,
    rescore: Annotated[
        Path | None,
        typer.Option(metavar="ROWS", help="Score the answers in rows of --output again, without asking the LM."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N examples of the split.")] = None,
    uncompiled: Annotated[bool, typer.Option("--uncompiled", help="Evaluate the program before compilation.")] = False,
    output: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Write one row per example: .jsonl, .csv or .parquet.")
    ] = None,
    report: Annotated[Path | None, typer.Option(metavar="PATH", help="Write an HTML report.")] = None,
    baseline: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Rows of the same examples to compare with in the report.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over, and replace the rows in --output.")] = False,
    repeats: Annotated[
        int,
        typer.Option(min=1, help="Run each example N times; report pass^k, the probability that k tries all pass."),
    ] = 1,
    log: Annotated[bool, typer.Option("--log", help="Log metrics, report and rows as an MLflow run.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Rows evaluated concurrently.")] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="ONETURN_API_KEY", help="The token to send to a URL, if it requires one.")
    ] = None,
    same_errors: Annotated[
        tuple[int, int],
        typer.Option(
            "--max-same-errors",
            metavar="FIRST IN_A_ROW",
            help="Stop if the first rows, or rows in a row, failed with the same error; 0 for no limit.",
        ),
    ] = (10, 20),
    approve: ApprovalOption = None,
    agent: AgentFile = AGENT_FILE,
    config: ConfigFile = None,
) -> None:
    """Evaluate the agent, or a served or logged one: score with 95% interval, by category, and cost.

    Scores are also given by every other label of the examples: a field with an enum in their schema.json.

    An LM judges groundedness and relevance if one is configured (judge.model).

    With --output, the same command resumes an interrupted or killed run. A file of anything else is never replaced.

    Examples:

        oneturn evaluate

        oneturn evaluate --split dev --limit 20 --uncompiled

        oneturn evaluate --data questions.parquet --output rows.parquet --threads 16

        oneturn evaluate --rescore rows.parquet --output rows.parquet

        oneturn evaluate --report report.html --baseline rows-of-last-week.jsonl

        oneturn evaluate --split dev --repeats 5 --log

        oneturn evaluate http://127.0.0.1:8000 --split dev
    """
    for path, option in ((output, "--output"), (data, "--data")):
        if path is not None and path.suffix not in SUFFIXES:
            raise typer.BadParameter(f"{path} must end in .jsonl, .csv or .parquet.", param_hint=option)
    check_page(report, "--report")
    if data is not None and output is not None and data.exists() and output.exists() and output.samefile(data):
        raise typer.BadParameter(f"{output} is the --data; name another file for the rows.", param_hint="--output")
    _check_used(
        {
            "--split": ("--data", split is not None and data is not None),
            "--limit": ("--data", limit is not None and data is not None),
            "--uncompiled": ("a TARGET", uncompiled and target is not None),
        }
    )
    if rescore is not None:
        given = {
            "TARGET": target is not None,
            "--split": split is not None,
            "--limit": limit is not None,
            "--uncompiled": uncompiled,
            "--repeats": repeats != 1,
            "--fresh": fresh,
        }
        _check_used({option: ("--rescore", is_given) for option, is_given in given.items()})
    if baseline is not None and report is None:
        raise typer.BadParameter(
            "The report contains the comparison with a baseline: add --report FILE.html.", param_hint="--baseline"
        )
    loaded = load(agent, config)

    from oneturn.cli.tables import detail_tables, score_table
    from oneturn.core.splits import enum_defaults, read_schema
    from oneturn.errors import OneTurnError
    from oneturn.evaluation import ErrorLimits, output_types
    from oneturn.evaluation.agent_data import load_data
    from oneturn.evaluation.error_limits import first_errors
    from oneturn.evaluation.report import write_report
    from oneturn.evaluation.report.mlflow import log_evaluation
    from oneturn.evaluation.rescoring import rescore as score_again
    from oneturn.evaluation.result import Evaluation
    from oneturn.evaluation.scorers import judges

    before = None if baseline is None else Evaluation.read(baseline)
    labels = {"category": None, **enum_defaults(read_schema(loaded.examples_folder))}

    split_name = (split or Split.test).value
    name = f"{target or loaded.name} on {data or split_name}"
    options: dict[str, Any] = {
        "repeats": repeats,
        "output": output,
        "fresh": fresh,
        "threads": threads or loaded.config.compile.threads,
        "approve": build_policy(approve),
        "max_same_errors": ErrorLimits(*same_errors),
    }
    metrics: dict[str, Any] = {"score": loaded.metric, **{judge.name: judge for judge in judges(loaded.config.judge)}}
    if rescore is not None:
        examples = None if data is None else load_data(loaded, data, agent, config)
        if isinstance(examples, Path):
            raise typer.BadParameter(f"{data} isn't in the form of the agent's examples.", param_hint="--data")
        name = f"{rescore} again"
        evaluation = score_again(rescore, metrics, examples=examples, types=output_types(loaded), output=output)
    else:
        rows = load_data(loaded, data, agent, config) if data is not None else loaded.examples(split_name)[:limit]
        evaluation = _run(loaded, target, rows, metrics, uncompiled, api_key, options)
    errors = evaluation.figures["error"]
    if errors.notna().all():
        where = f" They are in {output}." if output is not None else ""
        raise OneTurnError(f"All {len(errors)} rows failed; there is no score.{where}\n{first_errors(errors)}")
    console = build_console()
    for table in (score_table({name: evaluation}, console.width), *detail_tables(evaluation, labels)):
        console.print(table)
    columns: dict[tuple[int, str], list[str]] = {}
    for column, not_judged in evaluation.not_judged().items():
        columns.setdefault(not_judged, []).append(column)
    for (unjudged, reason), of_same in columns.items():
        console.out(f"{', '.join(of_same)}: {unjudged} of {len(evaluation.rows)} rows. {reason}")
    if output is not None:
        console.out(f"Rows: {output}")
    if report is not None:
        names = ("baseline" if baseline is None else baseline.stem, name)
        write_report(report, evaluation, before, title=name, names=names)
        console.out(f"Page: {report}")
    if log:
        console.out(f"MLflow run: {log_evaluation(loaded, evaluation, name)}")


def _run(
    agent: Agent,
    target: str | None,
    rows: Any,
    metrics: dict[str, Any],
    uncompiled: bool,
    api_key: str | None,
    options: dict[str, Any],
) -> Evaluation:
    """Evaluate the agent, or the target if one is given."""
    from oneturn.config.tracking import use_store
    from oneturn.errors import OneTurnError
    from oneturn.evaluation import evaluate, output_types

    if target is not None:
        if target.startswith(("models:/", "runs:/")) and not os.environ.get("MLFLOW_TRACKING_URI"):
            use_store(agent.config.mlflow, agent.root)
        try:
            types = output_types(agent)
        except OneTurnError as error:  # a tool's server, say, that only the served agent can reach
            echo(f"Outputs are read as JSON, because the agent can't be built here: {error}", err=True)
            types = None
        return evaluate(target, rows, metrics, api_key=api_key, types=types, **options)
    if uncompiled:
        agent = replace(agent, config=agent.config.model_copy(update={"compiled": None}))
    return evaluate(agent, rows, metrics, **options)


def compare(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help="Rows of `oneturn evaluate --output`.")],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="Rows of the same examples.")],
    gate: Annotated[bool, typer.Option("--gate", help="Exit with 1 if the configured rule fails.")] = False,
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Write the comparison as JSON; - for stdout.")
    ] = None,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write it as Markdown.")] = None,
    agent: AgentFile = AGENT_FILE,
    config: ConfigFile = None,
) -> None:
    """Compare two evaluations of the same examples in pairs: the difference with its interval, and flipped examples.

    Examples:

        oneturn compare uncompiled.jsonl compiled.jsonl

        oneturn compare yesterday.parquet today.parquet --gate --markdown comment.md
    """
    check_folders({"--json": json_file, "--markdown": markdown})
    loaded = load(agent, config)

    from oneturn.evaluation.comparison import compare
    from oneturn.evaluation.result import Evaluation

    comparison = compare(
        Evaluation.read(before), Evaluation.read(after), loaded.config.gate, names=(before.stem, after.stem)
    )
    if json_file == "-":
        typer.echo(comparison.to_json())
    else:
        build_console().print(comparison)
        if json_file is not None:
            Path(json_file).write_text(comparison.to_json() + "\n", encoding="utf-8")
    if markdown is not None:
        markdown.write_text(comparison.to_markdown(), encoding="utf-8")
    if gate and not comparison.passed:
        raise typer.Exit(1)
