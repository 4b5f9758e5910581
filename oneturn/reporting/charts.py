"""The plots' geometry, in per cent of their frames: the template draws them as SVG."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

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
