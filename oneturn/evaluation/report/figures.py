"""The figures and charts of a report."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from oneturn.errors import DataError, OneTurnError
from oneturn.evaluation.comparison import GateResult, compare
from oneturn.evaluation.report.rows import STATES, Columns, records, state
from oneturn.evaluation.result import Evaluation
from oneturn.evaluation.statistics import interval

_BINS = 32
_BARS = 160
_COLUMNS, _ROWS = 48, 20


@dataclass(frozen=True)
class Bar:
    """A bar, or a disc (``radius`` in pixels), with its tooltip; positions and sizes are percentages."""

    x: float
    y: float
    width: float
    height: float
    label: str
    radius: float = 0.0


@dataclass(frozen=True)
class Chart:
    """Bars or discs, with a horizontal axis from zero to ``end``."""

    bars: tuple[Bar, ...]
    end: float
    top: int = 0


def latency(seconds: Sequence[float]) -> Chart:
    """A histogram of the rows' seconds."""
    end = _round_up(max(seconds, default=0.0))
    counts, edges = np.histogram(list(seconds), bins=_BINS, range=(0.0, end))
    top = max(int(counts.max()), 1)
    width = 100 / _BINS
    bars = (
        Bar(
            index * width, 100 - 100 * count / top, width, 100 * count / top, f"{low:.3g} to {high:.3g} s: {count} rows"
        )
        for index, (count, low, high) in enumerate(zip(counts.tolist(), edges[:-1], edges[1:], strict=True))
        if count
    )
    return Chart(tuple(bars), end, top)


def score_against_tokens(tokens: Sequence[float], scores: Sequence[float]) -> Chart:
    """One disc per bin of tokens and score; its size shows the number of rows."""
    end = _round_up(max(tokens, default=0.0))
    cells = Counter(
        (min(int(used / end * _COLUMNS), _COLUMNS - 1), round(score * _ROWS))
        for used, score in zip(tokens, scores, strict=True)
    )
    largest = max(cells.values(), default=1)
    discs = (
        Bar(
            (column + 0.5) * 100 / _COLUMNS,
            100 - row * 100 / _ROWS,
            0,
            0,
            f"about {(column + 0.5) * end / _COLUMNS:,.0f} tokens, score {row / _ROWS:.0%}: {count} rows",
            3.5 + 6.5 * math.sqrt((count - 1) / max(largest - 1, 1)),
        )
        for (column, row), count in sorted(cells.items())
    )
    return Chart(tuple(discs), end)


def differences(values: Sequence[float]) -> Chart:
    """The differences from the baseline in ascending order; with many rows, each bar is a mean of several."""
    ordered = np.sort(np.asarray(values, dtype=float))
    parts = np.array_split(ordered, min(_BARS, len(ordered))) if len(ordered) else []
    width = 100 / max(len(parts), 1)
    bars = (
        Bar(index * width, 50 - max(mean, 0) * 50, width, abs(mean) * 50, f"{mean:+.0%}, {len(part)} rows")
        for index, part in enumerate(parts)
        if (mean := float(np.clip(part.mean(), -1, 1))) != 0
    )
    return Chart(tuple(bars), float(len(ordered)))


def numbers(rows: pd.DataFrame, name: str) -> pd.Series:
    """A column as numbers; missing and non-numeric values are NaN."""
    column = rows[name] if name in rows else pd.Series(np.nan, index=rows.index)
    return pd.to_numeric(column, errors="coerce")


def _round_up(value: float) -> float:
    """The smallest round number that isn't below ``value``."""
    if not value > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if step * power >= value * (1 - 1e-9))


CATEGORIES = 60
"""The maximum number of categories shown; those with the most rows are kept."""


@dataclass(frozen=True)
class Scored:
    """The mean score of a group of rows, 0 to 1, and its 95% interval."""

    name: str
    rows: int
    score: float
    low: float
    high: float
    baseline: float | None = None


@dataclass(frozen=True)
class Figures:
    """The figures of an evaluation.

    Attributes:
        total: the score of all rows.
        states: the number of rows by state; see :data:`oneturn.evaluation.report.rows.STATES`.
        latency: the percentiles 50, 90 and 99 of the answered rows' seconds; empty if there are none.
        sums: LM calls, prompt and completion tokens, and US dollars, if known.
        metrics: the other metrics.
        categories: the score by category, in the order of the data.
        left_out: the number of categories that aren't shown.
    """

    total: Scored
    states: dict[str, int]
    latency: dict[int, float]
    sums: dict[str, float]
    metrics: tuple[Scored, ...]
    categories: tuple[Scored, ...]
    left_out: int


def figures(evaluation: Evaluation, baseline: Evaluation | None, category: str, pass_score: float) -> Figures:
    """Compute the figures of an evaluation."""
    rows = evaluation.rows
    failed = rows["error"].notna()
    states = Counter(state(score, error, pass_score) for score, error in zip(rows["score"], failed, strict=True))
    scored = list(_categories(rows, baseline, category))
    largest = sorted(scored, key=lambda each: -each.rows)[:CATEGORIES]
    return Figures(
        total=Scored("all", len(rows), evaluation.score, *evaluation.interval, baseline.score if baseline else None),
        states={name: states[name] for name in STATES},
        latency=evaluation.latency(),
        sums=evaluation.spent(),
        metrics=tuple(_metrics(rows, failed)),
        categories=tuple(each for each in scored if each in largest),
        left_out=len(scored) - len(largest),
    )


def _metrics(rows: pd.DataFrame, failed: pd.Series) -> Iterator[Scored]:
    """The metrics that scored at least one answer; an unset judge has no figure."""
    for name in Columns.of(rows).metrics:
        scores = numbers(rows, name)
        if scores[~failed].notna().any():
            yield _scored(name, scores.dropna())


def compare_reported(
    evaluation: Evaluation, baseline: Evaluation, names: tuple[str, str]
) -> tuple[GateResult | None, str | None]:
    """The paired comparison; or the reason for its absence, if all rows of one evaluation failed.

    Raises:
        DataError: the examples aren't the same.
    """
    try:
        return compare(_normalized(baseline), _normalized(evaluation), names=names), None
    except DataError:
        raise
    except OneTurnError as error:
        return None, str(error)


def _normalized(side: Evaluation) -> Evaluation:
    """The evaluation with missing values normalized; they differ between files and memory."""
    return Evaluation(pd.DataFrame(records(side.rows)))


def _categories(rows: pd.DataFrame, baseline: Evaluation | None, category: str) -> Any:
    if category not in rows:
        return
    earlier = baseline.rows if baseline is not None and category in baseline.rows else None
    means = {} if earlier is None else earlier.groupby(earlier[category].astype(str))["score"].mean().to_dict()
    for name, group in rows.groupby(rows[category].astype(str), sort=False):
        yield _scored(str(name), group["score"], means.get(str(name)))


def _scored(name: str, scores: pd.Series, baseline: float | None = None) -> Scored:
    return Scored(name, len(scores), float(scores.mean()), *interval(scores.to_numpy()), baseline)
