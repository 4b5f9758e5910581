"""The figures of a report: what the rows come to."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
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
_ACROSS, _DOWN = 48, 20


@dataclass(frozen=True)
class Bar:
    """A bar, or a disc (``radius`` in pixels), and what it says when it is pointed at."""

    x: float
    y: float
    width: float
    height: float
    label: str
    radius: float = 0.0


@dataclass(frozen=True)
class Chart:
    """Bars or discs in a frame whose axis along the bottom goes from zero to ``end``."""

    bars: tuple[Bar, ...]
    end: float
    top: int = 0


def latency(seconds: Sequence[float]) -> Chart:
    """How many rows took how long."""
    end = _nice(max(seconds, default=0.0))
    counts, edges = np.histogram(list(seconds), bins=_BINS, range=(0.0, end))
    top = max(int(counts.max()), 1)
    width = 100 / _BINS
    bars = (
        Bar(
            place * width, 100 - 100 * count / top, width, 100 * count / top, f"{low:.3g} to {high:.3g} s: {count} rows"
        )
        for place, (count, low, high) in enumerate(zip(counts.tolist(), edges[:-1], edges[1:], strict=True))
        if count
    )
    return Chart(tuple(bars), end, top)


def score_against_tokens(tokens: Sequence[float], scores: Sequence[float]) -> Chart:
    """A disc for the rows of about the same tokens and score, larger for more of them."""
    end = _nice(max(tokens, default=0.0))
    cells = Counter(
        (min(int(used / end * _ACROSS), _ACROSS - 1), round(score * _DOWN))
        for used, score in zip(tokens, scores, strict=True)
    )
    most = max(cells.values(), default=1)
    discs = (
        Bar(
            (across + 0.5) * 100 / _ACROSS,
            100 - down * 100 / _DOWN,
            0,
            0,
            f"about {(across + 0.5) * end / _ACROSS:,.0f} tokens, score {down / _DOWN:.0%}: {count} rows",
            3.5 + 6.5 * math.sqrt((count - 1) / max(most - 1, 1)),
        )
        for (across, down), count in sorted(cells.items())
    )
    return Chart(tuple(discs), end)


def differences(values: Sequence[float]) -> Chart:
    """The differences from the baseline in rising order: a bar each, or a bar for as many as share one."""
    rising = np.sort(np.asarray(values, dtype=float))
    parts = np.array_split(rising, min(_BARS, len(rising))) if len(rising) else []
    width = 100 / max(len(parts), 1)
    bars = (
        Bar(place * width, 50 - max(mean, 0) * 50, width, abs(mean) * 50, f"{mean:+.0%}, {len(part)} rows")
        for place, part in enumerate(parts)
        if (mean := float(np.clip(part.mean(), -1, 1))) != 0
    )
    return Chart(tuple(bars), float(len(rising)))


def numbers(rows: pd.DataFrame, name: str) -> pd.Series:
    """A column's numbers; those that are missing, or no number, are not a number."""
    column = rows[name] if name in rows else pd.Series(np.nan, index=rows.index)
    return pd.to_numeric(column, errors="coerce")


def _nice(most: float) -> float:
    """The round number at or above the greatest value."""
    if not most > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(most))
    return next(step * power for step in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if step * power >= most * (1 - 1e-9))


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
        states: how many rows ended how; see :data:`oneturn.evaluation.report.rows.STATES`.
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
    found = list(_categories(rows, baseline, category))
    kept = sorted(found, key=lambda each: -each.rows)[:CATEGORIES]
    return Figures(
        total=Scored("all", len(rows), evaluation.score, *evaluation.interval, baseline.score if baseline else None),
        states={name: states[name] for name in STATES},
        latency=evaluation.latency(),
        sums=evaluation.spent(),
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
