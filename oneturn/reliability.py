"""``pass^k``: how reliably a program succeeds, where each example was tried several times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np

from oneturn.intervals import interval


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
