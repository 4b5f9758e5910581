"""The front of a compile: the candidates that no other beats in both score and cost, and the choice among them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from oneturn.compilation.candidate import Candidate
from oneturn.errors import ConfigError
from oneturn.evaluation.statistics import interval, interval_to_decide_by

Preference = Literal["quality", "balanced", "cost"]
Unit = Literal["US dollars", "tokens", "seconds"]
_UNITS = ("LM calls", "tokens", "seconds", "US dollars")


@dataclass(frozen=True)
class Front:
    """The measured candidates of a compile, and which of them no other beats.

    A candidate beats another if its score is at least as high and its cost at most as high, and one of the two better.

    Attributes:
        measured: the candidates that were measured on all development examples with their usage, in order.
        unit: the unit of the cost of a question: US dollars if the price of each LM is known, tokens if there is one
            LM, and seconds otherwise.
    """

    measured: tuple[Candidate, ...]
    unit: Unit

    @classmethod
    def of(cls, candidates: Sequence[Candidate]) -> Front:
        """Build the front of those candidates that have an evaluation."""
        measured = tuple(candidate for candidate in candidates if candidate.evaluation is not None)
        if all(candidate.per_question("US dollars") is not None for candidate in measured):
            return cls(measured, "US dollars")
        return cls(measured, "tokens" if len({candidate.lm for candidate in measured}) == 1 else "seconds")

    def cost(self, candidate: Candidate) -> float:
        """The candidate's mean cost of a question, in ``unit``."""
        return candidate.per_question(self.unit) or 0.0

    @property
    def points(self) -> list[Candidate]:
        """The candidates that no other beats, the cheapest first; of equal ones, the first that was measured."""
        points: list[Candidate] = []
        for candidate in sorted(self.measured, key=lambda each: (self.cost(each), -each.score, each.number)):
            if not points or candidate.score > points[-1].score:
                points.append(candidate)
        return points

    def choose(self, prefer: Preference | int, result: int | None = None) -> Candidate:
        """Choose a candidate.

        Args:
            prefer: ``quality`` for the highest score; ``cost`` for the cheapest point whose loss to the highest score
                isn't significant (the 95% interval of the paired difference includes zero); ``balanced`` for the point
                nearest to the highest score at the lowest cost, each scaled to the range of the front; or the number
                of a candidate.
            result: the number of the recipe's own result, which ``quality`` takes on a tie.

        Raises:
            ConfigError: no measured candidate has that number.
        """
        points = self.points
        best = points[-1]
        if isinstance(prefer, int):
            return self._numbered(prefer)
        if prefer == "cost":
            return next(point for point in points if _difference(point, best)[2] >= 0)
        if prefer == "balanced":
            return min(points, key=self._distance_to_ideal)
        ties = [each for each in self.measured if each.number == result and each.score >= best.score]
        return ties[0] if ties else best

    def table(self) -> pd.DataFrame:
        """Return a table of the front, the cheapest first: score with interval, usage a question, and loss to the best.

        ``to best`` is the paired difference from the candidate with the highest score, in points, with its 95%
        interval: the answer to "what do I lose with the cheaper one".
        """
        points = self.points
        rows = []
        for point in points:
            low, high = interval(point.scores)
            loss, loss_low, loss_high = (100 * value for value in _difference(point, points[-1]))
            rows.append(
                {
                    "candidate": point.number,
                    "program": point.name,
                    "LM": point.lm,
                    "score": point.score,
                    "low": low,
                    "high": high,
                    "to best": loss,
                    "to best, low": loss_low,
                    "to best, high": loss_high,
                    **{f"{unit} a question": point.per_question(unit) for unit in _UNITS},
                }
            )
        return pd.DataFrame(rows).dropna(axis="columns", how="all")

    def to_dicts(self) -> list[dict[str, Any]]:
        """The front for the manifest: number, LM, score and usage of each point, the cheapest first."""
        names = {"lm_calls": "LM calls", "tokens": "tokens", "seconds": "seconds", "cost": "US dollars"}
        points = []
        for point in self.points:
            usage = {name: point.per_question(unit) for name, unit in names.items()}
            known = {name: round(value, 6) for name, value in usage.items() if value is not None}
            points.append({"candidate": point.number, "lm": point.lm, "score": round(point.score, 6), **known})
        return points

    def _numbered(self, number: int) -> Candidate:
        for candidate in self.measured:
            if candidate.number == number:
                return candidate
        numbers = ", ".join(str(candidate.number) for candidate in self.measured)
        raise ConfigError(f"There is no measured candidate {number}; the candidates are {numbers}.")

    def _distance_to_ideal(self, point: Candidate) -> float:
        points = self.points
        costs, scores = [self.cost(each) for each in points], [each.score for each in points]
        return math.hypot(
            _scaled(self.cost(point), min(costs), max(costs)), 1 - _scaled(point.score, min(scores), max(scores))
        )


def _scaled(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 1.0


def _difference(candidate: Candidate, best: Candidate) -> tuple[float, float, float]:
    """The paired difference of two candidates' scores, with its 95% interval."""
    differences = np.asarray(candidate.scores) - np.asarray(best.scores)
    return float(differences.mean()), *interval_to_decide_by(differences)
