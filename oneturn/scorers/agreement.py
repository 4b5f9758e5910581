"""How far two raters agree (Cohen 1960)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

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
