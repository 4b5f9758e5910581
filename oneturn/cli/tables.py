"""Evaluations as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from oneturn.evaluation import Evaluation, interval


def comparison(evaluations: Mapping[str, Evaluation]) -> Table:
    """One line an evaluation: its score, and what a row took."""
    table = _table("", "score", "95% interval", "rows", "errors", "s/row", "LM calls/row", "tokens read/written a row")
    for name, evaluation in evaluations.items():
        figures = evaluation.summary()
        table.add_row(
            name,
            f"{figures['score']:.1%}",
            _span(figures["score_low"], figures["score_high"]),
            f"{figures['rows']:.0f}",
            f"{figures['errors']:.0f}",
            f"{figures['seconds_per_row']:.2f}",
            f"{figures['lm_calls_per_row']:.2f}",
            f"{figures['prompt_tokens_per_row']:.0f} / {figures['completion_tokens_per_row']:.0f}",
        )
    return table


def by_category(evaluation: Evaluation) -> Table:
    """One line a category: score, interval, rows."""
    table = _table("category", "score", "95% interval", "rows")
    for category, rows in evaluation.rows.groupby("category", sort=False):
        score = rows["score"]
        table.add_row(str(category), f"{score.mean():.1%}", _span(*interval(score.to_numpy())), str(len(rows)))
    return table


def _span(low: float, high: float) -> str:
    return f"{low:.1%} to {high:.1%}"


def _table(*headers: str) -> Table:
    table = Table(*headers)
    for column in table.columns[1:]:
        column.justify = "right"
    return table
