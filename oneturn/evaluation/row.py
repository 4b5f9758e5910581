"""One row of an evaluation: run the target, retry if it is busy, apply the metrics."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Mapping
from typing import Any

import dspy

from oneturn.core.secrets import redact
from oneturn.core.serialization import jsonable, replace_surrogates_deep
from oneturn.errors import DataError
from oneturn.evaluation.approval import approval_required
from oneturn.evaluation.data_sources import Unreadable
from oneturn.evaluation.rate_limit import ConcurrencyLimiter, answer_with_retries
from oneturn.evaluation.result import Metric
from oneturn.evaluation.targets import Target, TargetResult
from oneturn.evaluation.typed_fields import with_label_types

Row = dict[str, Any]


def evaluate_row(
    target: Target,
    example: dspy.Example,
    metrics: Mapping[str, Metric],
    limiter: ConcurrencyLimiter,
    tries: int,
    known: Row | None = None,
) -> Row:
    """Answer an example and judge the answer; a failure is recorded in the row.

    A label of an output has the output's type; one of another type is an error, and the LM isn't asked. The row has the
    labels as they were given. Half surrogates, which UTF-8 can't encode, become U+FFFD in the row.

    Args:
        target: what answers.
        example: the example.
        metrics: the metrics by column name.
        limiter: limits how many rows run in parallel.
        tries: the maximum number of attempts.
        known: additional columns of the row.
    """
    row: Row = {**{name: jsonable(value) for name, value in example.items()}, **(known or {})}
    try:
        example = with_label_types(example, target.types)
    except DataError as mismatch:
        return unjudged_row({**row, **_measured(TargetResult(), 0)}, metrics, mismatch)
    answered, attempts, error = answer_with_retries(target, example, limiter, tries)
    row |= {f"pred_{name}": jsonable(value) for name, value in answered.prediction.items()}
    row |= _measured(answered, attempts)
    if error is None:
        row = judge_row(row, metrics, example, answered.noted)
        if answered.approvals and row["error"] is not None:  # the metric can't score it
            return {**row, **_failed(metrics, approval_required(str(call["name"]) for call in answered.approvals))}
        return row
    return unjudged_row(row, metrics, error)


def judge_row(row: Row, metrics: Mapping[str, Metric], example: dspy.Example, prediction: dspy.Prediction) -> Row:
    """The row with the metrics' results; if a metric raises, the row has the score 0 and the error."""
    try:
        return encodable({**row, **_judged(example, prediction, metrics), "error": None})
    except Exception as error:  # a failing metric must not stop the evaluation
        return unjudged_row(row, metrics, error)


def unjudged_row(row: Row, metrics: Mapping[str, Metric], error: Exception) -> Row:
    """The row with the score 0 and an error."""
    return encodable({**row, **_failed(metrics, f"{type(error).__name__}: {error}")})


def encodable(row: Row) -> Row:
    """The row with U+FFFD for half surrogates, which neither a table nor a file can hold."""
    encodable_row: Row = replace_surrogates_deep(row)
    return encodable_row


def unreadable_row(example: Unreadable, metrics: Mapping[str, Metric]) -> Row:
    """The row of an unreadable example."""
    return encodable({**_measured(TargetResult(), 0), **_failed(metrics, f"DataError: {example.reason}")})


def _measured(answered: TargetResult, tries: int) -> Row:
    return {
        "run_tool_calls": answered.tool_calls,
        "run_sources": answered.sources,
        "run_approvals": answered.approvals,
        **answered.usage.to_dict(),
        **dict.fromkeys(answered.unknown),
        "seconds": answered.seconds,
        "trace_id": answered.trace_id,
        "tries": tries,
    }


def _judged(example: dspy.Example, prediction: dspy.Prediction, metrics: Mapping[str, Metric]) -> Row:
    columns: Row = {}
    for name, metric in metrics.items():
        score, feedback = _verdict(metric(example, prediction))
        if not columns:
            if score is None:
                raise DataError(f"{name} returned no score: {feedback}")
            columns |= {"score": score, "feedback": feedback}
        if name != "score":
            columns |= {name: score, f"{name}_feedback": feedback}
    return columns


def _verdict(result: Any) -> tuple[float | None, str | None]:
    """The score, or ``None`` if the metric gave none, and the feedback."""
    if not isinstance(result, dspy.Prediction):
        return finite(result), None
    return None if result.score is None else finite(result.score), result.get("feedback")


def finite(score: Any) -> float:
    """A metric's score as a number.

    Raises:
        DataError: it isn't a finite number.
    """
    try:
        if isinstance(score, str | bytes | bytearray):  # float() reads them as numbers
            raise TypeError
        number = float(score)
    except (TypeError, ValueError):
        raise DataError(f"the metric returned {score!r:.80}; a score is a number, True or False") from None
    if not math.isfinite(number):
        raise DataError(f"the metric returned {number}; a score is a finite number")
    return number


def finite_metric(metric: Metric) -> Metric:
    """A metric for DSPy's optimizers that raises where ``metric`` returns no finite number.

    They take ``NaN`` for a success, and it makes their means ``NaN``; an exception counts as a failed row. When GEPA
    asks for feedback on a row (``pred_name``), where an exception would end it, the reason is the feedback.

    Raises:
        DataError: the score isn't a finite number.
    """

    @functools.wraps(metric)
    def checked(*args: Any, **kwargs: Any) -> Any:
        result = metric(*args, **kwargs)
        try:
            finite(getattr(result, "score", result))
        except DataError as error:
            if _asks_for_feedback(metric, args, kwargs):
                return dspy.Prediction(score=0.0, feedback=str(error))
            raise
        return result

    return checked


def _asks_for_feedback(metric: Metric, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    given = inspect.signature(metric).bind(*args, **kwargs).arguments
    return given.get("pred_name", args[3] if len(args) > 3 else None) is not None


def _failed(metrics: Mapping[str, Metric], reason: str) -> Row:
    reason = redact(reason)  # rows are written to files and logged
    row: Row = {"score": 0.0, "feedback": reason}
    for name in metrics:
        if name != "score":
            row |= {name: 0.0, f"{name}_feedback": None}
    return {**row, "error": reason}
