"""Confidence intervals: how far a mean of scores can be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
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


@dataclass(frozen=True)
class PassHatK:
    """The probability that ``k`` independent tries of an example all succeed, averaged over examples; 0 to 1.

    Attributes:
        k: tries.
        value: the estimate.
        low: lower bound of its 95% interval, over examples.
        high: upper bound.
    """

    k: int
    value: float
    low: float
    high: float


def pass_hat_k(passed: Sequence[Sequence[bool]]) -> list[PassHatK]:
    """``pass^k`` for each k that every example was tried so often (Yao et al., "τ-bench", 2024).

    Without bias, for an example with c passes in n tries: C(c, k) / C(n, k).

    Args:
        passed: for each example, whether each of its tries has passed.
    """
    found = []
    for k in range(1, min(map(len, passed), default=0) + 1):
        shares = np.array([comb(sum(tries), k) / comb(len(tries), k) for tries in passed])
        found.append(PassHatK(k, float(shares.mean()), *interval(shares)))
    return found


_RESAMPLES = 2000


def cohens_kappa(one: Any, other: Any, axis: int = -1) -> Any:
    """Agreement of two raters beyond chance; NaN where chance alone would make them agree always."""
    observed = np.mean(one == other, axis=axis)
    first, second = np.mean(one, axis=axis), np.mean(other, axis=axis)
    chance = first * second + (1 - first) * (1 - second)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(chance < 1, (observed - chance) / (1 - chance), np.nan)


def kappa_interval(people: Any, said: Any) -> tuple[float, float]:
    """95% interval of kappa (percentile bootstrap, Efron 1979), the same each time; NaN where kappa is."""
    if len(people) < 2 or math.isnan(float(cohens_kappa(people, said))):
        return math.nan, math.nan
    drawn = np.random.default_rng(0).integers(len(people), size=(_RESAMPLES, len(people)))
    resampled = cohens_kappa(people[drawn], said[drawn])
    low, high = np.nanpercentile(resampled, [2.5, 97.5])  # a resample may hold one kind of answers only
    return float(low), float(high)
