"""Log a report to MLflow: page, summary and rows as artifacts of a run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files

import mlflow
import pandas as pd
from jinja2 import Environment, StrictUndefined
from mlflow.data.pandas_dataset import from_pandas

from oneturn.agent import Agent
from oneturn.config.tracking import use_tracking
from oneturn.evaluation.report.figures import compare_reported, figures
from oneturn.evaluation.report.html import html
from oneturn.evaluation.result import Evaluation

_INVALID_CHARACTERS = re.compile(r"[^\w\-. :/]")
"""Characters that MLflow doesn't allow in a metric's name."""

_TRACES_PER_CALL = 100
"""Traces linked per call."""

_WORDS = {
    "lm_calls": "LM calls",
    "prompt_tokens": "tokens read",
    "completion_tokens": "tokens written",
    "cached_tokens": "tokens read from a prompt cache",
    "cache_write_tokens": "tokens written to a prompt cache",
    "reasoning_tokens": "tokens of reasoning",
    "cost": "US dollars",
}


def log_report(
    evaluation: Evaluation,
    baseline: Evaluation | None = None,
    *,
    run_id: str | None = None,
    title: str = "Evaluation",
    names: tuple[str, str] = ("baseline", "this evaluation"),
    category: str = "category",
    pass_score: float = 1.0,
) -> str:
    """Log the report to MLflow: ``report/report.html``, ``report/summary.md`` and ``report/rows.jsonl``.

    Args:
        evaluation: the evaluation to report.
        baseline: an evaluation of the same examples, to compare with.
        run_id: the run; ``None`` for the active run, or a new run if none is active.
        title: the title of the page, and the name of a new run.
        names: the names of the baseline and the evaluation.
        category: the label to group rows by, if they have it.
        pass_score: the minimum score, 0 to 1, of a passed row.

    Returns:
        The run's id.

    Raises:
        DataError: there are no rows, they aren't rows of an evaluation, or the baseline has other examples.
    """
    page = html(evaluation, baseline, title=title, names=names, category=category, pass_score=pass_score)
    texts = {
        "report.html": page,
        "summary.md": summary(evaluation, baseline, title, names, category, pass_score),
        "rows.jsonl": evaluation.to_jsonl(),
    }
    if run_id is not None:
        return _log(texts, run_id)
    if (active := mlflow.active_run()) is not None:
        return _log(texts, active.info.run_id)
    with mlflow.start_run(run_name=title) as run:
        return _log(texts, run.info.run_id)


def log_evaluation(agent: Agent, evaluation: Evaluation, name: str) -> str:
    """Log an evaluation as a run of the agent's experiment, with metrics, dataset, report and linked traces.

    Returns:
        The run's id.
    """
    use_tracking(agent.config.mlflow, agent.root)
    with mlflow.start_run(run_name=name) as run:
        mlflow.set_tag("oneturn.evaluation", agent.name)
        mlflow.log_metrics({_INVALID_CHARACTERS.sub("_", name): value for name, value in evaluation.summary().items()})
        mlflow.log_input(from_pandas(_flatten(evaluation.rows[evaluation.labels]), name=name), context="evaluation")
        log_report(evaluation, title=name)
    traces = [trace for trace in evaluation.rows.get("trace_id", ()) if isinstance(trace, str)]
    client = mlflow.MlflowClient()
    for start in range(0, len(traces), _TRACES_PER_CALL):
        client.link_traces_to_run(traces[start : start + _TRACES_PER_CALL], run.info.run_id)
    return str(run.info.run_id)


def summary(
    evaluation: Evaluation,
    baseline: Evaluation | None,
    title: str,
    names: tuple[str, str],
    category: str,
    pass_score: float,
) -> str:
    """The figures as Markdown."""
    page = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)  # noqa: S701 - Markdown
    page.filters["cell"] = _cell
    comparison, unmeasured = (None, None) if baseline is None else compare_reported(evaluation, baseline, names)
    template = files("oneturn.evaluation.report") / "assets" / "summary.md.jinja"
    return page.from_string(template.read_text(encoding="utf-8")).render(
        title=title,
        names=names,
        figures=figures(evaluation, baseline, category, pass_score),
        comparison=comparison,
        unmeasured=unmeasured,
        words=_WORDS,
        percent=lambda value: f"{value:.1%}",
        signed=lambda value: f"{100 * value:+.1f}",
    )


def _log(texts: Mapping[str, str], run_id: str) -> str:
    for name, text in texts.items():
        mlflow.log_text(text, f"report/{name}", run_id=run_id)
    return run_id


def _cell(text: str) -> str:
    """Text for a Markdown table cell: on one line, with markup escaped."""
    return re.sub(r"([\\`*_\[\]<>|#&])", r"\\\1", " ".join(text.split()))


def _flatten(examples: pd.DataFrame) -> pd.DataFrame:
    return examples.map(lambda value: str(value) if isinstance(value, list | dict) else value)
