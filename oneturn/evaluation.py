"""Evaluate a program on examples: one row an example, whatever happens to it."""

from __future__ import annotations

import contextvars
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import dspy
import numpy as np
import pandas as pd
from dspy.adapters.utils import serialize_for_json
from scipy.stats import bootstrap
from tqdm.auto import tqdm

from oneturn.errors import DataError
from oneturn.spend import spending

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

    @property
    def score(self) -> float:
        """Mean score, 0 to 1; a row that failed counts as 0."""
        return float(self.rows["score"].mean())

    @property
    def interval(self) -> tuple[float, float]:
        """95% confidence interval of the score (BCa bootstrap, Efron 1987; through SciPy)."""
        return interval(self.rows["score"].to_numpy())

    def summary(self) -> dict[str, float]:
        """The figures that are compared: score, its interval, rows, errors, calls, tokens and seconds a row."""
        low, high = self.interval
        means = self.rows[["lm_calls", "prompt_tokens", "completion_tokens", "seconds"]].mean()
        return {
            "score": self.score,
            "score_low": low,
            "score_high": high,
            "rows": float(len(self.rows)),
            "errors": float(self.rows["error"].notna().sum()),
            **{f"{name}_per_row": float(value) for name, value in means.items()},
        }

    def by(self, column: str) -> pd.DataFrame:
        """Mean score and number of rows for each value of a label, such as ``category``."""
        return self.rows.groupby(column)["score"].agg(score="mean", rows="size")


def evaluate(
    program: dspy.Module,
    examples: Sequence[dspy.Example],
    metric: Metric,
    *,
    lm: dspy.BaseLM | None = None,
    threads: int = 1,
    progress: bool = True,
) -> Evaluation:
    """Run ``program`` on every example and judge each answer.

    A program or a metric that raises costs that row its score, nothing more: the reason stands in the
    row's ``error``.

    Args:
        program: any DSPy module that takes the examples' inputs.
        examples: with inputs marked (``with_inputs``).
        metric: how an answer is judged.
        lm: the LM to use; ``None`` for the one that is configured.
        threads: rows at the same time.
        progress: whether to show a bar.

    Raises:
        DataError: there are no examples.
    """
    if not examples:
        raise DataError("There are no examples to evaluate; give at least one.")

    def row(example: dspy.Example) -> dict[str, Any]:
        with dspy.context(**({"lm": lm} if lm is not None else {})):
            return _row(program, example, metric)

    results = _in_order(row, examples, threads)
    shown = tqdm(results, total=len(examples), desc="evaluate", unit="row", disable=not progress)
    return Evaluation(pd.DataFrame(list(shown)))


def interval(scores: Any) -> tuple[float, float]:
    """95% confidence interval of a mean; the mean twice where the scores don't differ."""
    values = np.asarray(scores, dtype=float)
    if len(values) < 2 or np.ptp(values) < 1e-9:  # BCa needs scores that differ
        return float(values.mean()), float(values.mean())
    found = bootstrap((values,), np.mean, n_resamples=2000, rng=np.random.default_rng(0)).confidence_interval
    return float(found.low), float(found.high)


def _in_order(
    work: Callable[[dspy.Example], dict[str, Any]], examples: Sequence[dspy.Example], threads: int
) -> Iterator[dict[str, Any]]:
    with ThreadPoolExecutor(max_workers=threads) as pool:
        # dspy.context travels in context variables, which a plain pool doesn't inherit.
        futures = [pool.submit(contextvars.copy_context().run, work, example) for example in examples]
        try:
            yield from (future.result() for future in futures)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _row(program: dspy.Module, example: dspy.Example, metric: Metric) -> dict[str, Any]:
    row: dict[str, Any] = {name: serialize_for_json(value) for name, value in example.items()}
    started = time.perf_counter()
    error: Exception | None = None
    prediction = dspy.Prediction()
    with spending() as spend:
        try:
            prediction = program(**example.inputs())
        except Exception as raised:  # a failed row is a row: it is told in the result, never lost
            error = raised
    row["seconds"] = time.perf_counter() - started + spend.replayed
    row |= {f"pred_{name}": serialize_for_json(value) for name, value in prediction.items()}
    row |= spend.to_dict()
    return judged(row, metric, example, prediction) if error is None else _failed(row, error)


def judged(row: dict[str, Any], metric: Metric, example: dspy.Example, prediction: dspy.Prediction) -> dict[str, Any]:
    """A row of an evaluation with what the metric says of its prediction; a metric that fails costs it its score."""
    try:
        return {**row, **_judged(metric(example, prediction)), "error": None}
    except Exception as error:  # as above
        return _failed(row, error)


def _failed(row: dict[str, Any], error: Exception) -> dict[str, Any]:
    reason = f"{type(error).__name__}: {error}"
    return {**row, "score": 0.0, "feedback": reason, "error": reason}


def _judged(result: Any) -> dict[str, Any]:
    if isinstance(result, dspy.Prediction):
        return {"score": float(result.score), "feedback": result.get("feedback")}
    return {"score": float(result), "feedback": None}
