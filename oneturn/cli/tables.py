"""Evaluations as tables for a terminal, and as files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
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


def write(rows: pd.DataFrame, path: Path) -> None:
    """Write rows to JSONL, CSV or Parquet; in the last two, a nested value is JSON text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        rows.to_json(path, orient="records", lines=True, force_ascii=False)
        return
    flat = rows.apply(lambda column: column.map(_flat) if column.map(_is_nested).any() else column)
    if path.suffix == ".csv":
        flat.to_csv(path, index=False)
    else:
        flat.to_parquet(path, index=False)


def _flat(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _is_nested(value: Any) -> bool:
    return isinstance(value, (dict, list))


def _span(low: float, high: float) -> str:
    return f"{low:.1%} to {high:.1%}"


def _table(*headers: str) -> Table:
    table = Table(*headers)
    for column in table.columns[1:]:
        column.justify = "right"
    return table
