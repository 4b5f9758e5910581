"""The rows of an evaluation as the report tells them: each a mapping of plain values, by what they mean."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from oneturn.plain_json import plain
from oneturn.reporting.columns import Columns, state

LONGEST = 20_000
"""Characters of a text that are shown; of a longer one, the beginning."""

Row = dict[str, Any]


def records(rows: pd.DataFrame) -> list[Row]:
    """The rows as mappings of plain values; what pandas tells as missing is ``None``."""
    whole = rows.astype(object).where(rows.notna(), None)
    return [{str(name): _value(value) for name, value in row.items()} for row in whole.to_dict("records")]


def told(record: Row, number: int, columns: Columns, category: str, pass_score: float) -> Row:
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
