"""The rows of an evaluation as plain values for the report."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from oneturn.core.secrets import UNCERTAIN, redact
from oneturn.core.serialization import plain
from oneturn.evaluation.result import MEASURED

STATES = ("passed", "partial", "failed", "error")


@dataclass(frozen=True)
class Columns:
    """The roles of the columns of an evaluation's rows.

    Attributes:
        labels: the fields of the examples.
        outputs: the program's outputs, ``pred_…``.
        metrics: the metrics besides the score.
        question: the label shown as a row's question, if there is one.
        answer: the output shown as a row's answer, if there is one.
    """

    labels: tuple[str, ...]
    outputs: tuple[str, ...]
    metrics: tuple[str, ...]
    question: str | None
    answer: str | None

    @classmethod
    def of(cls, rows: pd.DataFrame) -> Columns:
        """Determine the roles of the columns of ``rows``."""
        names = [str(name) for name in rows]
        metrics = [name for name in names if f"{name}_feedback" in names and name not in MEASURED]
        measured = {*MEASURED, *metrics, *(f"{name}_feedback" for name in metrics)}
        outputs = tuple(name for name in names if name.startswith("pred_") and name not in measured)
        labels = tuple(name for name in names if name not in measured and name not in outputs)
        candidates = [name for name in labels if name not in ("id", "category")]
        return cls(labels, outputs, tuple(metrics), _first("question", candidates), _first("pred_answer", outputs))


def state(score: float, failed: bool, pass_score: float) -> str:
    """The state of a row: ``"error"``, ``"passed"``, ``"partial"`` or ``"failed"`` (a score of 0)."""
    if failed:
        return "error"
    if score >= pass_score - 1e-9:
        return "passed"
    return "partial" if score > 1e-9 else "failed"


def _first(wanted: str, names: Sequence[str]) -> str | None:
    return wanted if wanted in names else next(iter(names), None)


LONGEST = 20_000
"""The maximum number of shown characters; longer texts are truncated."""

Row = dict[str, Any]


def records(rows: pd.DataFrame) -> list[Row]:
    """The rows as mappings of plain values, with ``None`` for missing values."""
    objects = rows.astype(object).where(rows.notna(), None)
    return [{str(name): _value(value) for name, value in row.items()} for row in objects.to_dict("records")]


def row_view(record: Row, number: int, columns: Columns, category: str, pass_score: float) -> Row:
    """One row in the form that the page's script reads."""
    error = record.get("error")
    score = float(record.get("score") or 0.0)
    return {
        "n": number,
        "id": _text(record.get("id", number)),
        "category": _text(record.get(category)) if category in columns.labels else "",
        "repeat": record.get("repeat"),
        "state": state(score, error is not None, pass_score),
        "score": score,
        "question": _text(record.get(columns.question or "")),
        "answer": _text(record.get(columns.answer or "")),
        "labels": {name: record.get(name) for name in columns.labels if name not in ("id", columns.question)},
        "outputs": {name.removeprefix("pred_"): record.get(name) for name in columns.outputs},
        "feedback": _text(record.get("feedback")) if error is None else "",
        "metrics": [[name, record.get(name), record.get(f"{name}_feedback")] for name in columns.metrics],
        "steps": list(_steps(_as_list(record.get("run_tool_calls")))),
        "sources": [_text(source) for source in _as_list(record.get("run_sources"))],
        "error": _text(error),
        "trace": _text(record.get("trace_id")),
        "seconds": record.get("seconds"),
        "lm_calls": record.get("lm_calls"),
        "read": record.get("prompt_tokens"),
        "written": record.get("completion_tokens"),
        "cost": record.get("cost"),
        "tries": record.get("tries"),
    }


def _value(value: Any) -> Any:
    converted = plain(value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value)
    return _truncate(converted)


def _truncate(value: Any) -> Any:
    """The value with long texts truncated, and secrets redacted."""
    if isinstance(value, str):
        text = redact(value[: LONGEST + 1000], without=UNCERTAIN)[:LONGEST]  # answers are prose
        rest = len(value) - LONGEST
        return f"{text}… ({rest:,} more characters aren't shown)" if rest > 0 else text
    if isinstance(value, Mapping):
        return {name: _truncate(inner) for name, inner in value.items()}
    return [_truncate(inner) for inner in value] if isinstance(value, list) else value


def _text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False)


def _as_list(value: Any) -> list[Any]:
    """A list, parsed from JSON if it comes from a CSV or Parquet file."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return [value]
    return value if isinstance(value, list) else []


def _steps(calls: Sequence[Any]) -> Iterator[Row]:
    for call in calls:
        if isinstance(call, Mapping):
            yield {"name": _text(call.get("name")), "arguments": call.get("arguments"), "output": call.get("output")}
        else:
            yield {"name": "", "arguments": None, "output": call}
