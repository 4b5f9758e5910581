"""The rows of an evaluation as the report tells them: each a mapping of plain values, by what they mean."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from oneturn.core.serialization import plain

STATES = ("passed", "partial", "failed", "error")

_MEASURED = {
    *("score", "feedback", "lm_calls", "prompt_tokens", "completion_tokens", "cost", "seconds"),
    *("trace_id", "tries", "error", "repeat", "pred_tool_calls", "pred_sources", "pred_approvals"),
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


LONGEST = 20_000
"""Characters of a text that are shown; of a longer one, the beginning."""

Row = dict[str, Any]


def records(rows: pd.DataFrame) -> list[Row]:
    """The rows as mappings of plain values; what pandas tells as missing is ``None``."""
    whole = rows.astype(object).where(rows.notna(), None)
    return [{str(name): _value(value) for name, value in row.items()} for row in whole.to_dict("records")]


def row_view(record: Row, number: int, columns: Columns, category: str, pass_score: float) -> Row:
    """One row as the page reads it."""
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
        "steps": list(_steps(_listed(record.get("pred_tool_calls")))),
        "sources": [_text(source) for source in _listed(record.get("pred_sources"))],
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
    found = plain(value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value)
    return _cut(found)


def _cut(value: Any) -> Any:
    """The value with texts that aren't too long to be shown."""
    if isinstance(value, str) and len(value) > LONGEST:
        return f"{value[:LONGEST]}… ({len(value) - LONGEST:,} more characters aren't shown)"
    if isinstance(value, Mapping):
        return {name: _cut(inner) for name, inner in value.items()}
    return [_cut(inner) for inner in value] if isinstance(value, list) else value


def _text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False)


def _listed(value: Any) -> list[Any]:
    """A list, which a CSV or Parquet file holds as JSON."""
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
