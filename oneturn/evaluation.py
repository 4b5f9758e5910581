"""What an evaluation found: its rows, its score and how sure that is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import bootstrap

Metric = Callable[..., Any]
"""DSPy's: ``metric(example, prediction, trace=None)`` gives a number or a Prediction: ``score`` and ``feedback``."""


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        rows: one row an example, in the given order: its labels, ``pred_…`` outputs, ``score`` (0 to 1),
            ``feedback``, ``lm_calls``, ``prompt_tokens``, ``completion_tokens``, ``seconds``, ``error``.
    """

    rows: pd.DataFrame

    @classmethod
    def read(cls, path: Path) -> Evaluation:
        """The rows of a file that an evaluation has written."""
        readers: dict[str, Callable[[Path], pd.DataFrame]] = {
            ".jsonl": lambda found: pd.read_json(found, lines=True),
            ".csv": pd.read_csv,
            ".parquet": pd.read_parquet,
        }
        return cls(readers[path.suffix](path))

    @property
    def score(self) -> float:
        """Mean score, 0 to 1; a row that failed counts as 0."""
        return float(self.rows["score"].mean())

    @property
    def interval(self) -> tuple[float, float]:
        """95% confidence interval of the score (BCa bootstrap, Efron 1987; through SciPy)."""
        return interval(self.rows["score"].to_numpy())

    def summary(self) -> dict[str, float]:
        """The figures that are compared: score, its interval, rows, errors, calls, tokens and seconds a row.

        Where a metric couldn't judge every answer, ``…_not_judged`` says how many rows that were.
        """
        low, high = self.interval
        means = self.rows[["lm_calls", "prompt_tokens", "completion_tokens", "seconds"]].mean()
        return {
            "score": self.score,
            "score_low": low,
            "score_high": high,
            "rows": float(len(self.rows)),
            "errors": float(self.rows["error"].notna().sum()),
            **{f"{name}_per_row": float(value) for name, value in means.items()},
            **{f"{name}_not_judged": float(rows) for name, (rows, _) in self.not_judged().items()},
        }

    def not_judged(self) -> dict[str, tuple[int, str]]:
        """The metrics that couldn't judge every answer: how many they couldn't, and why the first one."""
        answered = self.rows[self.rows["error"].isna()]
        found = {}
        for name in answered.columns.intersection([str(each).removesuffix("_feedback") for each in answered]):
            if f"{name}_feedback" in answered and (missing := answered[answered[name].isna()]).size:
                found[str(name)] = (len(missing), str(missing[f"{name}_feedback"].iloc[0]))
        return found

    def by(self, column: str) -> pd.DataFrame:
        """Mean score and number of rows for each value of a label, such as ``category``."""
        return self.rows.groupby(column)["score"].agg(score="mean", rows="size")


def interval(scores: Any) -> tuple[float, float]:
    """95% confidence interval of a mean; the mean twice where the scores don't differ."""
    values = np.asarray(scores, dtype=float)
    if len(values) < 2 or np.ptp(values) < 1e-9:  # BCa needs scores that differ
        return float(values.mean()), float(values.mean())
    found = bootstrap((values,), np.mean, n_resamples=2000, rng=np.random.default_rng(0)).confidence_interval
    return float(found.low), float(found.high)
