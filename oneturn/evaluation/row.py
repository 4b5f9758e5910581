"""One row of an evaluation: answered, tried again where that helps, judged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dspy
from dspy.utils.exceptions import is_retryable_lm_error

from oneturn.core.serialization import jsonable
from oneturn.errors import AgentError, DataError, EndpointError
from oneturn.evaluation.data_sources import Unreadable
from oneturn.evaluation.rate_limit import Limiter
from oneturn.evaluation.result import REPEAT, Metric
from oneturn.evaluation.targets import Answered, Target

Row = dict[str, Any]
_BUSY = (429, 503)


def evaluated(
    target: Target,
    example: dspy.Example,
    metrics: Mapping[str, Metric],
    limiter: Limiter,
    tries: int,
    known: Row | None = None,
) -> Row:
    """Answer an example and judge the answer; what fails is told in the row.

    Args:
        target: what answers.
        example: the data's row.
        metrics: by the names of their columns.
        limiter: says when.
        tries: how often at most.
        known: what the row says besides.
    """
    row: Row = {**{name: jsonable(value) for name, value in example.items()}, **(known or {})}
    answered, made, error = _answered(target, example, limiter, tries)
    row |= {f"pred_{name}": jsonable(value) for name, value in answered.prediction.items()}
    row |= _measured(answered, made)
    if error is None:
        row = judged(row, metrics, example, answered.noted)
        if answered.approvals and row["error"] is not None:  # the metric can't score it
            names = ", ".join(str(call["name"]) for call in answered.approvals)
            return {**row, **_failed(metrics, f"approval_required: {names} needs a person's approval")}
        return row
    return {**row, **_failed(metrics, f"{type(error).__name__}: {error}")}


def judged(row: Row, metrics: Mapping[str, Metric], example: dspy.Example, prediction: dspy.Prediction) -> Row:
    """A row with what the metrics say of its prediction; one that fails costs it its score."""
    try:
        return {**row, **_judged(example, prediction, metrics), "error": None}
    except Exception as error:  # a metric's failure costs its row the score, nothing more
        return {**row, **_failed(metrics, f"{type(error).__name__}: {error}")}


def unreadable(found: Unreadable, metrics: Mapping[str, Metric]) -> Row:
    """The row of what can't be evaluated on."""
    return {**_measured(Answered(), 0), **_failed(metrics, f"DataError: {found.reason}")}


def clash(example: dspy.Example) -> Unreadable | None:
    """Why an example can't have a row, if it can't: a field of this name would make it a repeat of another."""
    taken = REPEAT in example
    return Unreadable(f"a field is called {REPEAT!r}, as a column of the result: rename it") if taken else None


def _measured(answered: Answered, tries: int) -> Row:
    return {
        "pred_tool_calls": answered.tool_calls,
        "pred_sources": answered.sources,
        "pred_approvals": answered.approvals,
        "lm_calls": 0,
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "cost": None,
        **answered.spend,
        "seconds": answered.seconds,
        "trace_id": answered.trace_id,
        "tries": tries,
    }


def _answered(
    target: Target, example: dspy.Example, limiter: Limiter, tries: int
) -> tuple[Answered, int, Exception | None]:
    for attempt in range(tries):
        answered = Answered()
        with limiter.slot():
            try:
                target.answer(example, answered)
            except Exception as error:  # whatever a program raises is its row's
                failure = error
            else:
                limiter.answered()
                return answered, attempt + 1, None
        if not _busy(failure) or answered.approved or attempt + 1 == tries:  # no approved call is run twice
            return answered, attempt + 1, failure
        limiter.refused(getattr(failure, "retry_after", None), attempt)
    raise ValueError(f"A row is tried {tries} times; it must be tried once.")


def _busy(error: Exception) -> bool:
    """Whether the same row may be answered later: what was refused has done nothing yet."""
    if isinstance(error, AgentError | EndpointError):
        return error.status in _BUSY
    return bool(is_retryable_lm_error(error))


def _judged(example: dspy.Example, prediction: dspy.Prediction, metrics: Mapping[str, Metric]) -> Row:
    judged: Row = {}
    for name, metric in metrics.items():
        score, told = _verdict(metric(example, prediction))
        if not judged:
            if score is None:
                raise DataError(f"{name} gave no score: {told}")
            judged |= {"score": score, "feedback": told}
        if name != "score":
            judged |= {name: score, f"{name}_feedback": told}
    return judged


def _verdict(result: Any) -> tuple[float | None, str | None]:
    """The score, if the metric could give one, and why it is that."""
    if not isinstance(result, dspy.Prediction):
        return float(result), None
    return None if result.score is None else float(result.score), result.get("feedback")


def _failed(metrics: Mapping[str, Metric], reason: str) -> Row:
    row: Row = {"score": 0.0, "feedback": reason}
    for name in metrics:
        if name != "score":
            row |= {name: 0.0, f"{name}_feedback": None}
    return {**row, "error": reason}
