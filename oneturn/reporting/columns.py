"""What the columns of an evaluation's rows mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

STATES = ("passed", "partial", "failed", "error")

_MEASURED = {
    *("score", "feedback", "lm_calls", "prompt_tokens", "completion_tokens", "cost", "seconds"),
    *("trace_id", "tries", "error", "repeat", "pred_tool_calls", "pred_sources"),
}


@dataclass(frozen=True)
class Columns:
    """Which columns of an evaluation's rows mean what.

    Attributes:
        labels: the fields of the examples.
        outputs: the program's outputs, ``pred_…``.
        metrics: the metrics besides the score.
        question: the label that a row is told by, if there is one.
        answer: the output that a row is told by, if there is one.
    """

    labels: tuple[str, ...]
    outputs: tuple[str, ...]
    metrics: tuple[str, ...]
    question: str | None
    answer: str | None

    @classmethod
    def of(cls, rows: pd.DataFrame) -> Columns:
        """The columns of these rows."""
        names = [str(name) for name in rows]
        metrics = [name for name in names if f"{name}_feedback" in names and name not in _MEASURED]
        other = {*_MEASURED, *metrics, *(f"{name}_feedback" for name in metrics)}
        outputs = tuple(name for name in names if name.startswith("pred_") and name not in other)
        labels = tuple(name for name in names if name not in other and name not in outputs)
        told = [name for name in labels if name not in ("id", "category")]
        return cls(labels, outputs, tuple(metrics), _first("question", told), _first("pred_answer", outputs))


def state(score: float, failed: bool, pass_score: float) -> str:
    """How a row ended: ``"error"``, ``"passed"``, ``"partial"`` or ``"failed"`` (nothing of it was right)."""
    if failed:
        return "error"
    if score >= pass_score - 1e-9:
        return "passed"
    return "partial" if score > 1e-9 else "failed"


def _first(wanted: str, names: Sequence[str]) -> str | None:
    return wanted if wanted in names else next(iter(names), None)
