"""``Evaluation``: the rows of an evaluation, and the figures computed from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from oneturn.core.row_files import json_line
from oneturn.core.serialization import plain
from oneturn.core.usage import USAGE_COLUMNS
from oneturn.evaluation.data_sources import without_nan
from oneturn.evaluation.results_reader import read_records, read_results
from oneturn.evaluation.run_record import RUN_COLUMNS
from oneturn.evaluation.statistics import PassHatK, interval, pass_hat_k

Metric = Callable[..., Any]
"""A DSPy metric: ``metric(example, prediction, trace=None)`` returns a number, or a Prediction with ``score`` and
``feedback``."""

PASSED = 1 - 1e-9
REPEAT = "repeat"
_TOTALLED = tuple(name for name in USAGE_COLUMNS if name != "cost")
_USAGE = (*_TOTALLED, "seconds")
MEASURED = {REPEAT, "score", "feedback", "error", *RUN_COLUMNS, *_USAGE, "cost", "tries", "trace_id"}
"""Columns that an evaluation adds, besides the ``pred_…`` columns and the metrics."""


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Args:
        found: the rows, or the file that contains them, which is read on access.
    """

    found: pd.DataFrame | Path

    @classmethod
    def read(cls, path: str | Path) -> Evaluation:
        """Open a file written by an evaluation; most rows are read on access.

        Raises:
            DataError: the file doesn't exist, can't be read, or has no rows of an evaluation.
        """
        read_results(Path(path), None, 1)
        return cls(Path(path))

    @cached_property
    def rows(self) -> pd.DataFrame:
        """One row per example and repeat, in order: labels, ``pred_…`` outputs, ``score`` (0 to 1), and more.

        See :func:`oneturn.evaluate` for all columns.
        """
        return self.found if isinstance(self.found, pd.DataFrame) else read_results(self.found)

    def to_jsonl(self) -> str:
        """The rows as JSON lines, with the values as they are; numbers that JSON doesn't have are ``null``."""
        if isinstance(self.found, Path):
            return "".join(json_line(plain(row)) for row in read_records(self.found))
        return "".join(json_line(plain(without_nan(row))) for row in self.found.to_dict("records"))

    @cached_property
    def figures(self) -> pd.DataFrame:
        """The numeric columns of ``rows`` and ``error``: enough for all figures, with little memory."""
        if isinstance(self.found, pd.DataFrame):
            return _numeric_columns(self.found)
        return read_results(self.found, _numeric_columns)

    @property
    def score(self) -> float:
        """Mean score, 0 to 1; a row that failed counts as 0."""
        return float(self.figures["score"].mean())

    @property
    def interval(self) -> tuple[float, float]:
        """95% confidence interval of the score over examples; see :func:`interval`. Repeats are averaged first."""
        return interval(self._by_example("score"))

    @property
    def repeats(self) -> int:
        """Number of tries per example."""
        return int(self.figures[REPEAT].max()) + 1 if REPEAT in self.figures else 1

    @property
    def labels(self) -> list[str]:
        """The columns that come from the examples."""
        measured = {*MEASURED, *self.metrics(), *(f"{name}_feedback" for name in self.metrics())}
        return [name for name in self._columns if name not in measured and not name.startswith("pred_")]

    def summary(self) -> dict[str, float]:
        """The figures by name, as logged and compared.

        ``score`` with ``_low`` and ``_high``, likewise for other metrics; ``rows`` and ``errors``; calls, tokens,
        seconds and tries ``_per_row``; totals of ``lm_calls``, tokens and ``cost`` (US dollars, if prices are known);
        percentiles ``seconds_p50``, ``_p90``, ``_p99`` of the answered rows; ``pass_hat_1``, ``pass_hat_2``, … for
        repeated examples. ``…_not_judged`` is the number of answered rows that a metric gave no score for.
        """
        low, high = self.interval
        columns = [name for name in (*_USAGE, "tries") if name in self.figures and self.figures[name].notna().any()]
        return {
            "score": self.score,
            "score_low": low,
            "score_high": high,
            "rows": float(len(self.figures)),
            "errors": float(self.figures["error"].notna().sum()),
            **{f"{name}_per_row": float(value) for name, value in self.figures[columns].mean().items()},
            **self.spent(),
            **{f"seconds_p{rank}": value for rank, value in self.latency().items()},
            **dict(self._metrics()),
            **{f"pass_hat_{estimate.k}": estimate.value for estimate in self.pass_hat_k() if self.repeats > 1},
            **{f"{name}_not_judged": float(rows) for name, (rows, _) in self.not_judged().items()},
        }

    def spent(self) -> dict[str, float]:
        """Totals over all rows: LM calls, tokens and, if the prices of all calls are known, US dollars (``cost``)."""
        names = [name for name in (*_TOTALLED, "cost") if name in self.figures and self.figures[name].notna().any()]
        if {"cost", "lm_calls"} <= set(names) and self.figures.loc[self.figures["lm_calls"] > 0, "cost"].isna().any():
            names.remove("cost")  # answers from a cache cost nothing
        return {name: float(self.figures[name].sum()) for name in names}

    def latency(self) -> dict[int, float]:
        """The percentiles 50, 90 and 99 of the seconds per row, for answered rows."""
        if "seconds" not in self.figures:
            return {}
        seconds = self.figures.loc[self.figures["error"].isna(), "seconds"].dropna()
        return {rank: float(np.percentile(seconds, rank)) for rank in (50, 90, 99)} if len(seconds) else {}

    def errors(self) -> dict[str, int]:
        """The number of failed rows by error type, the most frequent first."""
        kinds = self.figures["error"].dropna().map(lambda error: str(error).partition(":")[0])
        return {str(kind): int(count) for kind, count in kinds.value_counts().items()}

    def pass_hat_k(self, threshold: float = PASSED) -> list[PassHatK]:
        """``pass^k`` for k = 1 to the number of repeats: the probability that k tries of an example all pass.

        Args:
            threshold: the minimum score, 0 to 1, of a passed row.
        """
        passed = self.figures["score"] >= threshold
        return pass_hat_k([list(tries) for _, tries in passed.groupby(self._examples())])

    def metrics(self) -> list[str]:
        """The names of the metrics besides the score."""
        return metrics_among(self._columns)

    def judged(self) -> list[str]:
        """The metrics that scored at least one answer; no figure is given for another, such as an unset judge."""
        answered = self.figures["error"].isna()
        return [name for name in self.metrics() if self.figures.loc[answered, name].notna().any()]

    def not_judged(self) -> dict[str, tuple[int, str]]:
        """For each metric with unjudged answers: their number, and the reason for the first one."""
        answered = self.figures["error"].isna()
        counts = {}
        for name in self.metrics():
            if count := int((missing := answered & self.figures[name].isna()).sum()):
                counts[name] = (count, str(self.rows.loc[missing, f"{name}_feedback"].iloc[0]))
        return counts

    def by(self, column: str, missing: str | None = None) -> pd.DataFrame:
        """Mean score, its interval and the number of rows for each value of a label, such as ``category``.

        Args:
            column: the label.
            missing: the value of rows without the label; ``None`` leaves these rows out.
        """
        figures = {}
        labels = self.rows[column] if missing is None else self.rows[column].fillna(missing)
        for value, rows in self.rows.groupby(labels, sort=False):
            low, high = Evaluation(rows).interval
            figures[value] = {"score": float(rows["score"].mean()), "low": low, "high": high, "rows": len(rows)}
        return pd.DataFrame.from_dict(figures, orient="index").rename_axis(column).astype({"rows": int})

    def by_example(self) -> Evaluation:
        """One row per example: means over its repeats, other columns from the first; unchanged without repeats."""
        if REPEAT not in self.rows:
            return self
        groups = self.rows.groupby(self._examples(), sort=False)
        rows = groups.head(1).reset_index(drop=True)
        means = groups[[name for name in self._means() if name in self.rows]].mean().reset_index(drop=True)
        failed = groups["error"].apply(lambda errors: errors.isna().any()).reset_index(drop=True)
        rows[means.columns] = means
        rows["error"] = rows["error"].where(~failed, None)  # an example failed if all of its tries failed
        return Evaluation(rows.drop(columns=REPEAT))

    @cached_property
    def _columns(self) -> list[str]:
        return list(map(str, self.found if isinstance(self.found, pd.DataFrame) else read_results(self.found, None, 1)))

    def _means(self) -> list[str]:
        return ["score", *_USAGE, "cost", "tries", *self.metrics()]

    def _examples(self) -> pd.Series:
        """The number of the example of each row; repeats of an example are consecutive."""
        if REPEAT in self.figures:
            return (self.figures[REPEAT].diff().fillna(-1) <= 0).cumsum()
        return pd.Series(range(len(self.figures)), index=self.figures.index)

    def _by_example(self, name: str) -> Any:
        return self.figures[name].groupby(self._examples()).mean().dropna().to_numpy()

    def _metrics(self) -> Iterator[tuple[str, float]]:
        for name in self.judged():
            scores = self._by_example(name)
            low, high = interval(scores)
            yield from ((name, float(scores.mean())), (f"{name}_low", low), (f"{name}_high", high))


def metrics_among(columns: Sequence[str]) -> list[str]:
    """The metrics besides the score: the columns between ``feedback`` and ``error`` that have their own feedback."""
    if "feedback" not in columns or "error" not in columns:
        return []
    between = columns[columns.index("feedback") + 1 : columns.index("error")]
    return [name for name in between if f"{name}_feedback" in between]


def _numeric_columns(rows: pd.DataFrame) -> pd.DataFrame:
    """The numeric columns and ``error``; an empty metric column is converted to missing numbers."""
    measured = [name for name in rows if name in ("score", "error", REPEAT, *_USAGE, "cost", "tries")]
    metrics = metrics_among(list(map(str, rows)))
    figures = rows[[*measured, *metrics]].copy()
    for name in figures.columns.difference(["error"]):
        figures[name] = pd.to_numeric(figures[name])
    return figures
