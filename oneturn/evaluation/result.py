"""What an evaluation found: its rows, its score and how sure that is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from oneturn.core.usage import USAGE_COLUMNS
from oneturn.evaluation.results_file import read_results
from oneturn.evaluation.statistics import PassHatK, interval, pass_hat_k

Metric = Callable[..., Any]
"""DSPy's: ``metric(example, prediction, trace=None)`` gives a number or a Prediction: ``score`` and ``feedback``."""

PASSED = 1 - 1e-9
REPEAT = "repeat"
_SPENT = (*(name for name in USAGE_COLUMNS if name != "cost"), "seconds")
MEASURED = {REPEAT, "score", "feedback", "error", *_SPENT, "cost", "tries", "trace_id"}
"""Columns that an evaluation adds, beside those that begin with ``pred_`` and the metrics."""


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Args:
        found: the rows, or the file that they stand in, which is read when they are asked for.
    """

    found: pd.DataFrame | Path

    @classmethod
    def read(cls, path: str | Path) -> Evaluation:
        """The rows of a file that an evaluation has written; most of them are read when they are asked for.

        Raises:
            DataError: the file isn't there, can't be read, or holds no evaluation's rows.
        """
        read_results(Path(path), None, 1)
        return cls(Path(path))

    @cached_property
    def rows(self) -> pd.DataFrame:
        """One row an example, in the given order: its labels, ``pred_…`` outputs, ``score`` (0 to 1), and the rest.

        See :func:`oneturn.evaluate` for all columns.
        """
        return self.found if isinstance(self.found, pd.DataFrame) else read_results(self.found)

    @cached_property
    def figures(self) -> pd.DataFrame:
        """The columns of ``rows`` that hold numbers, and ``error``: enough for every figure, and little memory."""
        if isinstance(self.found, pd.DataFrame):
            return _figures(self.found)
        return read_results(self.found, _figures)

    @property
    def score(self) -> float:
        """Mean score, 0 to 1; a row that failed counts as 0."""
        return float(self.figures["score"].mean())

    @property
    def interval(self) -> tuple[float, float]:
        """95% confidence interval of the score; see :func:`interval`. Repeats of an example count as one."""
        return interval(self._by_example("score"))

    @property
    def repeats(self) -> int:
        """How often each example was tried."""
        return int(self.figures[REPEAT].max()) + 1 if REPEAT in self.figures else 1

    @property
    def labels(self) -> list[str]:
        """The columns of the examples themselves."""
        measured = {*MEASURED, *self.metrics(), *(f"{name}_feedback" for name in self.metrics())}
        return [name for name in self._columns if name not in measured and not name.startswith("pred_")]

    def summary(self) -> dict[str, float]:
        """The figures that are compared, by name.

        ``score`` with ``_low`` and ``_high``, other metrics alike; ``rows``, ``errors``; calls, tokens, seconds and
        tries ``_per_row``; ``lm_calls``, tokens and ``cost`` (US dollars, where prices are known) in all; percentiles
        ``seconds_p50``, ``_p90``, ``_p99`` of the rows that were answered; ``pass_hat_1`` and on where examples were
        repeated. Where a metric couldn't judge every answer, ``…_not_judged`` says how many rows that were.
        """
        low, high = self.interval
        columns = [name for name in (*_SPENT, "tries") if name in self.figures]
        return {
            "score": self.score,
            "score_low": low,
            "score_high": high,
            "rows": float(len(self.figures)),
            "errors": float(self.figures["error"].notna().sum()),
            **{f"{name}_per_row": float(value) for name, value in self.figures[columns].mean().items()},
            **{name: value for name, value in self.spent().items() if name != "seconds"},
            **{f"seconds_p{rank}": value for rank, value in self.latency().items()},
            **dict(self._metrics()),
            **{f"pass_hat_{found.k}": found.value for found in self.pass_hat_k() if self.repeats > 1},
            **{f"{name}_not_judged": float(rows) for name, (rows, _) in self.not_judged().items()},
        }

    def spent(self) -> dict[str, float]:
        """LM calls, tokens and, where prices are known, US dollars (``cost``) of all rows."""
        names = [name for name in (*_SPENT, "cost") if name in self.figures and self.figures[name].notna().any()]
        return {name: float(self.figures[name].sum()) for name in names}

    def latency(self) -> dict[int, float]:
        """The percentiles 50, 90 and 99 of the seconds that a row took, of those that were answered."""
        seconds = self.figures.loc[self.figures["error"].isna(), "seconds"].dropna()
        return {rank: float(np.percentile(seconds, rank)) for rank in (50, 90, 99)} if len(seconds) else {}

    def errors(self) -> dict[str, int]:
        """How many rows failed of each kind of error, the most frequent first."""
        kinds = self.figures["error"].dropna().map(lambda error: str(error).partition(":")[0])
        return {str(kind): int(count) for kind, count in kinds.value_counts().items()}

    def pass_hat_k(self, threshold: float = PASSED) -> list[PassHatK]:
        """``pass^k`` for k = 1 to the number of repeats: how likely k tries of an example all pass.

        Args:
            threshold: the score, 0 to 1, from which a row has passed.
        """
        passed = self.figures["score"] >= threshold
        return pass_hat_k([list(tries) for _, tries in passed.groupby(self._examples())])

    def metrics(self) -> list[str]:
        """The metrics beside the score, by name."""
        return metrics_among(self._columns)

    def not_judged(self) -> dict[str, tuple[int, str]]:
        """The metrics that couldn't judge every answer: how many they couldn't, and why the first one."""
        answered = self.figures["error"].isna()
        found = {}
        for name in self.metrics():
            if count := int((missing := answered & self.figures[name].isna()).sum()):
                found[name] = (count, str(self.rows.loc[missing, f"{name}_feedback"].iloc[0]))
        return found

    def by(self, column: str) -> pd.DataFrame:
        """For each value of a label, such as ``category``: mean score, its interval and the number of rows."""
        found = {}
        for value, rows in self.rows.groupby(column, sort=False):
            low, high = Evaluation(rows).interval
            found[value] = {"score": float(rows["score"].mean()), "low": low, "high": high, "rows": len(rows)}
        return pd.DataFrame.from_dict(found, orient="index").rename_axis(column).astype({"rows": int})

    def by_example(self) -> Evaluation:
        """One row an example: means over its repeats, and of the rest the first; itself where nothing was repeated."""
        if REPEAT not in self.rows:
            return self
        groups = self.rows.groupby(self._examples(), sort=False)
        rows = groups.head(1).reset_index(drop=True)
        means = groups[[name for name in self._means() if name in self.rows]].mean().reset_index(drop=True)
        failed = groups["error"].apply(lambda errors: errors.isna().any()).reset_index(drop=True)
        rows[means.columns] = means
        rows["error"] = rows["error"].where(~failed, None)  # it failed if each of its tries did
        return Evaluation(rows.drop(columns=REPEAT))

    @cached_property
    def _columns(self) -> list[str]:
        return list(map(str, self.found if isinstance(self.found, pd.DataFrame) else read_results(self.found, None, 1)))

    def _means(self) -> list[str]:
        return ["score", *_SPENT, "cost", "tries", *self.metrics()]

    def _examples(self) -> pd.Series:
        """A number for each row that is the same for the repeats of an example: they stand together."""
        if REPEAT in self.figures:
            return (self.figures[REPEAT].diff().fillna(-1) <= 0).cumsum()
        return pd.Series(range(len(self.figures)), index=self.figures.index)

    def _by_example(self, name: str) -> Any:
        return self.figures[name].groupby(self._examples()).mean().dropna().to_numpy()

    def _metrics(self) -> Iterator[tuple[str, float]]:
        for name in self.metrics():
            if len(scores := self._by_example(name)):
                low, high = interval(scores)
                yield from ((name, float(scores.mean())), (f"{name}_low", low), (f"{name}_high", high))


def metrics_among(columns: Sequence[str]) -> list[str]:
    """The metrics beside the score: they stand between ``feedback`` and ``error``, each with its own feedback."""
    if "feedback" not in columns or "error" not in columns:
        return []
    between = columns[columns.index("feedback") + 1 : columns.index("error")]
    return [name for name in between if f"{name}_feedback" in between]


def _figures(rows: pd.DataFrame) -> pd.DataFrame:
    """What is counted: numbers and errors; a metric's empty column counts as numbers that aren't there."""
    wanted = [name for name in rows if name in ("score", "error", REPEAT, *_SPENT, "cost", "tries")]
    metrics = metrics_among(list(map(str, rows)))
    figures = rows[[*wanted, *metrics]].copy()
    for name in figures.columns.difference(["error"]):
        figures[name] = pd.to_numeric(figures[name])
    return figures
