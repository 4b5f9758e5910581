"""Confidence intervals: how far a mean of scores can be trusted."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from scipy.stats import bootstrap, t

_MANY = 2000
"""More scores have an interval by Student's t: a bootstrap's bias correction would take their square in memory."""


def interval(scores: Any) -> tuple[float, float]:
    """95% confidence interval of a mean: by BCa bootstrap (Efron 1987; through SciPy), the same each time.

    The mean twice where the scores don't differ; by Student's t of more than 2,000 scores, where the two agree.
    """
    return _interval(np.asarray(scores, dtype=float), "BCa")


def interval_to_decide_by(differences: Any) -> tuple[float, float]:
    """95% confidence interval of a mean of paired differences, for a decision that hangs on its lower bound.

    By percentile bootstrap. Of a few dozen pairs most of which don't differ, BCa's correction for skewness puts the
    lower bound of a chance gain above zero twice as often as the 2.5% that it stands for.
    """
    return _interval(np.asarray(differences, dtype=float), "percentile")


def _interval(values: Any, method: Literal["BCa", "percentile"]) -> tuple[float, float]:
    if len(values) < 2 or np.ptp(values) < 1e-9:  # a bootstrap needs scores that differ
        return float(values.mean()), float(values.mean())
    if len(values) > _MANY:
        low, high = t.interval(0.95, len(values) - 1, values.mean(), values.std(ddof=1) / np.sqrt(len(values)))
        return float(low), float(high)
    drawn = bootstrap((values,), np.mean, n_resamples=2000, method=method, rng=np.random.default_rng(0))
    return float(drawn.confidence_interval.low), float(drawn.confidence_interval.high)
