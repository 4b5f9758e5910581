"""Confidence intervals: how far a mean of scores can be trusted."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import bootstrap, t

_MANY = 2000
"""More scores have an interval by Student's t: a bootstrap's bias correction would take their square in memory."""


def interval(scores: Any) -> tuple[float, float]:
    """95% confidence interval of a mean: by BCa bootstrap (Efron 1987; through SciPy), the same each time.

    The mean twice where the scores don't differ; by Student's t of more than 2,000 scores, where the two agree.
    """
    values = np.asarray(scores, dtype=float)
    if len(values) < 2 or np.ptp(values) < 1e-9:  # BCa needs scores that differ
        return float(values.mean()), float(values.mean())
    if len(values) > _MANY:
        low, high = t.interval(0.95, len(values) - 1, values.mean(), values.std(ddof=1) / np.sqrt(len(values)))
        return float(low), float(high)
    found = bootstrap((values,), np.mean, n_resamples=2000, rng=np.random.default_rng(0)).confidence_interval
    return float(found.low), float(found.high)
