"""The figures of a report: what the rows come to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from oneturn.compiling.gate import GateResult, compare
from oneturn.errors import DataError, OneTurnError
from oneturn.evaluation import Evaluation
from oneturn.intervals import interval
from oneturn.reporting.charts import numbers
from oneturn.reporting.columns import STATES, Columns, state
from oneturn.reporting.rows import records

CATEGORIES = 60
"""So many categories are shown, those with the most rows."""


@dataclass(frozen=True)
class Scored:
    """Some rows' mean score, 0 to 1, and its 95% interval."""

    name: str
    rows: int
    score: float
    low: float
    high: float
    baseline: float | None = None


@dataclass(frozen=True)
class Figures:
    """What the rows come to.

    Attributes:
        total: the score of all rows.
        states: how many rows ended how; see :data:`oneturn.reporting.rows.STATES`.
        latency: the percentiles 50, 90 and 99 of the seconds of the rows that were answered; empty if there are none.
        sums: LM calls, tokens read and written, and US dollars where they are known.
        metrics: the other metrics.
        categories: the score by category, in the order of the data.
        left_out: how many categories aren't shown.
    """

    total: Scored
    states: dict[str, int]
    latency: dict[int, float]
    sums: dict[str, float]
    metrics: tuple[Scored, ...]
    categories: tuple[Scored, ...]
    left_out: int


def figures(evaluation: Evaluation, baseline: Evaluation | None, category: str, pass_score: float) -> Figures:
    """The figures of an evaluation."""
    rows = evaluation.rows
    failed = rows["error"].notna()
    states = Counter(state(score, error, pass_score) for score, error in zip(rows["score"], failed, strict=True))
    seconds = numbers(rows[~failed], "seconds").dropna()
    sums = {name: numbers(rows, name) for name in ("lm_calls", "prompt_tokens", "completion_tokens", "cost")}
    found = list(_categories(rows, baseline, category))
    kept = sorted(found, key=lambda each: -each.rows)[:CATEGORIES]
    return Figures(
        total=Scored("all", len(rows), evaluation.score, *evaluation.interval, baseline.score if baseline else None),
        states={name: states[name] for name in STATES},
        latency={rank: float(np.percentile(seconds, rank)) for rank in (50, 90, 99)} if len(seconds) else {},
        sums={name: float(values.sum()) for name, values in sums.items() if values.notna().any()},
        metrics=tuple(_scored(name, numbers(rows, name).fillna(0)) for name in Columns.of(rows).metrics),
        categories=tuple(each for each in found if each in kept),
        left_out=len(found) - len(kept),
    )


def compared(
    evaluation: Evaluation, baseline: Evaluation, names: tuple[str, str]
) -> tuple[GateResult | None, str | None]:
    """The comparison, pair by pair; or why there is none: one of the two failed throughout.

    Raises:
        DataError: the examples aren't the same.
    """
    try:
        return compare(_alike(baseline), _alike(evaluation), names=names), None
    except DataError:
        raise
    except OneTurnError as error:
        return None, str(error)


def _alike(side: Evaluation) -> Evaluation:
    """The rows, with missing values told in one way: a file tells them in another way than memory does."""
    return Evaluation(pd.DataFrame(records(side.rows)))


def _categories(rows: pd.DataFrame, baseline: Evaluation | None, category: str) -> Any:
    if category not in rows:
        return
    known = baseline.rows if baseline is not None and category in baseline.rows else None
    means = {} if known is None else known.groupby(known[category].astype(str))["score"].mean().to_dict()
    for name, group in rows.groupby(rows[category].astype(str), sort=False):
        yield _scored(str(name), group["score"], means.get(str(name)))


def _scored(name: str, scores: pd.Series, baseline: float | None = None) -> Scored:
    return Scored(name, len(scores), float(scores.mean()), *interval(scores.to_numpy()), baseline)
