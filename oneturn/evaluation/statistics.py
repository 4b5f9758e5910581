"""Statistics of scores: confidence intervals, ``pass^k`` and Cohen's kappa."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import Any, Literal

import numpy as np
from scipy.stats import bootstrap, norm, t

_MAX_BOOTSTRAP = 2000
"""Above this number of scores Student's t is used: BCa needs memory quadratic in the number of scores."""
_EQUAL = 1e-9


def interval(scores: Any) -> tuple[float, float]:
    """95% confidence interval of a mean: BCa bootstrap (Efron 1987; SciPy), deterministic.

    For more than 2,000 scores, Student's t is used; there the two methods agree. The bootstrap can't tell how sure one
    row is, or ten that are all right: for equal scores between 0 and 1 the interval is Wilson's, as of a share.
    """
    values = np.asarray(scores, dtype=float)
    mean = float(values.mean())
    if np.ptp(values) < _EQUAL and 0 <= mean <= 1:
        return _wilson(mean, len(values))
    return _interval(values, "BCa")


def interval_of_differences(differences: Any) -> tuple[float, float]:
    """95% confidence interval of a mean of paired differences: BCa bootstrap. For equal ones, it is the mean twice."""
    return _interval(np.asarray(differences, dtype=float), "BCa")


def interval_to_decide_by(differences: Any) -> tuple[float, float]:
    """95% confidence interval of a mean of paired differences, for decisions based on its lower bound.

    Uses the percentile bootstrap. With a few dozen pairs, most of them equal, BCa's skewness correction puts the lower
    bound of a chance gain above zero twice as often as the nominal 2.5%.
    """
    return _interval(np.asarray(differences, dtype=float), "percentile")


def _interval(values: Any, method: Literal["BCa", "percentile"]) -> tuple[float, float]:
    if len(values) < 2 or np.ptp(values) < _EQUAL:  # the bootstrap is undefined for equal scores
        return float(values.mean()), float(values.mean())
    if len(values) > _MAX_BOOTSTRAP:
        low, high = t.interval(0.95, len(values) - 1, values.mean(), values.std(ddof=1) / np.sqrt(len(values)))
        return float(low), float(high)
    result = bootstrap((values,), np.mean, n_resamples=2000, method=method, rng=np.random.default_rng(0))
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def _wilson(share: float, rows: int) -> tuple[float, float]:
    """Return the 95% interval of a share (Wilson 1927)."""
    square = float(norm.ppf(0.975)) ** 2
    middle = (share + square / (2 * rows)) / (1 + square / rows)
    margin = math.sqrt(square * (share * (1 - share) + square / (4 * rows)) / rows) / (1 + square / rows)
    return max(0.0, middle - margin), min(1.0, middle + margin)


@dataclass(frozen=True)
class PassHatK:
    """The probability that ``k`` independent tries of an example all succeed, averaged over examples; 0 to 1.

    Attributes:
        k: the number of tries.
        value: the estimate.
        low: lower bound of its 95% interval, over examples.
        high: upper bound.
    """

    k: int
    value: float
    low: float
    high: float


def pass_hat_k(passed: Sequence[Sequence[bool]]) -> list[PassHatK]:
    """``pass^k`` for each k up to the smallest number of tries of an example (Yao et al., "τ-bench", 2024).

    Unbiased estimate for an example with c passes in n tries: C(c, k) / C(n, k).

    Args:
        passed: for each example, whether each of its tries passed.
    """
    estimates = []
    for k in range(1, min(map(len, passed), default=0) + 1):
        shares = np.array([comb(sum(tries), k) / comb(len(tries), k) for tries in passed])
        estimates.append(PassHatK(k, float(shares.mean()), *interval(shares)))
    return estimates


_RESAMPLES = 2000


def cohens_kappa(one: Any, other: Any, axis: int = -1) -> Any:
    """Cohen's kappa, the agreement of two raters beyond chance; NaN if the expected agreement is 1.

    Equal to ``sklearn.metrics.cohen_kappa_score``, which takes a single pair of raters: the 2,000 resamples of
    :func:`kappa_interval` would take seconds.

    Args:
        one: the first rater's booleans.
        other: the second rater's booleans.
        axis: the axis of the answers.
    """
    observed = np.mean(one == other, axis=axis)
    first, second = np.mean(one, axis=axis), np.mean(other, axis=axis)
    chance = first * second + (1 - first) * (1 - second)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(chance < 1, (observed - chance) / (1 - chance), np.nan)


def kappa_interval(people: Any, said: Any) -> tuple[float, float]:
    """95% interval of kappa (percentile bootstrap, Efron 1979), deterministic; NaN if kappa is NaN."""
    if len(people) < 2 or math.isnan(float(cohens_kappa(people, said))):
        return math.nan, math.nan
    samples = np.random.default_rng(0).integers(len(people), size=(_RESAMPLES, len(people)))
    resampled = cohens_kappa(people[samples], said[samples])
    low, high = np.nanpercentile(resampled, [2.5, 97.5])  # kappa of a resample with only one label is NaN
    return float(low), float(high)
