"""The record beside a finished results file: which evaluation it is of, and the kinds of its columns.

``rows.csv`` has the record ``.rows.csv.evaluation``. It is valid as long as the file isn't changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from oneturn.core.column_kinds import ColumnKinds
from oneturn.core.row_files import write_rows


def record_path(path: Path) -> Path:
    """The record of a results file."""
    return path.with_name(f".{path.name}.evaluation")


def recorded_evaluation(path: Path) -> str | None:
    """The key of the evaluation that a file was finished by; ``None`` if it isn't known, or the file was changed."""
    return _read(path).get("evaluation")


def is_recorded(path: Path) -> bool:
    """Whether a file was finished by an evaluation, even if it was changed since."""
    return _record(path).get("evaluation") is not None


def recorded_columns(path: Path) -> ColumnKinds:
    """The kinds of the columns of a CSV file; empty if they aren't known, or the file was changed."""
    return dict(_read(path).get("columns") or {})


def write_recorded(path: Path, rows: Iterable[Mapping[str, Any]], evaluation: str | None) -> None:
    """Write a results file and its record.

    Args:
        path: the results file.
        rows: its rows.
        evaluation: the key of the evaluation; ``None`` if it isn't the finished file of one.
    """
    columns = write_rows(path, rows)
    record = {"evaluation": evaluation, "columns": columns if path.suffix == ".csv" else {}}  # others have their own
    if any(record.values()):
        record_path(path).write_text(json.dumps({**record, "sha256": _digest(path)}) + "\n", encoding="utf-8")
    else:
        record_path(path).unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    record = _record(path)
    return record if path.is_file() and record.get("sha256") == _digest(path) else {}


def _record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(record_path(path).read_bytes())
    except (OSError, ValueError):  # none, or written half, or by hand
        return {}
    return record if isinstance(record, dict) else {}


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
