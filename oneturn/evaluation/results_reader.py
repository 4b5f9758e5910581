"""Read the results file of an evaluation."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from oneturn.core.row_files import check_suffix, read_rows
from oneturn.errors import DataError
from oneturn.evaluation.results_record import recorded_columns
from oneturn.evaluation.run_record import RUN_COLUMNS

Row = dict[str, Any]
_READ_BATCH = 5000
_ROUNDED = 2**53  # larger integers are rounded by a float
Part = Callable[[pd.DataFrame], pd.DataFrame]


def read_results(path: Path, part: Part | None = None, most: int | None = None) -> pd.DataFrame:
    """Read the rows of a results file.

    Args:
        path: ``.jsonl``, ``.csv`` or ``.parquet``.
        part: applied to each batch of rows to select what is kept in memory.
        most: stop after the batch that reaches this number of rows.

    Raises:
        DataError: the file doesn't exist, can't be read, or has no rows of an evaluation.
    """
    check_suffix(path)
    if not path.is_file():
        raise DataError(f"{path} doesn't exist: write it with oneturn evaluate --output {path}.")
    rows = _concat(_batches(path), part, most)
    check_rows(rows, str(path))
    return rows


def read_records(path: Path) -> Iterator[Row]:
    """Yield the rows of a results file as mappings.

    Raises:
        DataError: the file doesn't exist, or can't be read.
    """
    if not path.is_file():
        raise DataError(f"{path} doesn't exist: write it with oneturn evaluate --output {path}.")
    yield from _read(path)


def holds_results(path: Path) -> bool:
    """Whether a file has the rows of an evaluation, rather than anything else."""
    try:
        first = next(_read(path), {})
    except DataError:
        return False
    return {"score", "feedback", "error", *RUN_COLUMNS} <= first.keys()


def check_rows(rows: pd.DataFrame, name: str) -> None:
    """Raise ``DataError`` if ``rows`` aren't the rows of an evaluation."""
    if rows.empty:
        raise DataError(f"{name} has no rows: give the rows of an evaluation.")
    for column in ("score", "error"):
        if column not in rows:
            raise DataError(
                f"{name} has no column {column!r}: give the result of oneturn.evaluate, or a file written by --output."
            )


def _batches(path: Path) -> Iterator[pd.DataFrame]:
    rows = _read(path)
    while batch := list(itertools.islice(rows, _READ_BATCH)):
        yield to_frame(batch)


def to_frame(rows: Sequence[Row]) -> pd.DataFrame:
    """A table of the rows. Integers that a column of floats would round, beside missing values, stay integers."""
    frame = pd.DataFrame(rows)
    for name in frame.select_dtypes("float64"):
        if frame[name].abs().max() >= _ROUNDED:
            cells = [row.get(name) for row in rows]
            if any(isinstance(cell, int) for cell in cells):
                frame[name] = pd.Series(cells, dtype=object)
    return frame


def _read(path: Path) -> Iterator[Row]:
    kinds = recorded_columns(path) if path.suffix == ".csv" else {}
    columns: set[str] = set()  # those of the first row
    for place, cells in read_rows(path, infer_types=True, quoted_is_text=True, kinds=kinds):
        if isinstance(cells, str):
            raise DataError(f"{path} can't be read: {place}: {cells}")
        columns = columns or set(cells)
        if damage := _damage(cells, columns):
            raise DataError(f"{path} can't be read: {place}: {damage}")
        yield cells


def _damage(row: Row, columns: Collection[str]) -> str | None:
    """What is wrong with a row of an evaluation, such as one that was edited by hand; ``None`` if nothing is."""
    if "score" not in columns:  # the rows of something else: check_rows says so
        return None
    if missing := [name for name in ("score", "error") if name in columns and name not in row]:
        return f"it has no {missing[0]}"
    score = row["score"]
    if not isinstance(score, int | float) or not math.isfinite(score):
        return f"its score is {score!r:.40}, not a finite number"
    for name in RUN_COLUMNS:
        if row.get(name) is not None and not _is_list(row[name]):
            return f"its {name} is {row[name]!r:.40}, not a list"
    return None


def _is_list(value: Any) -> bool:
    try:
        return isinstance(json.loads(value) if isinstance(value, str) else value, list)
    except ValueError:
        return False


def _concat(parts: Iterator[pd.DataFrame], keep: Part | None, most: int | None) -> pd.DataFrame:
    frames: list[pd.DataFrame] = []
    for part in parts:
        if part.empty:
            continue
        if "score" in part and "error" in part:
            frames.append(part if keep is None else keep(part))
        else:
            frames.append(part)
        if most is not None and sum(map(len, frames)) >= most:
            break
    # A column that is empty in one batch takes its type from the others.
    non_empty = [part.dropna(axis="columns", how="all") for part in frames]
    columns = list(dict.fromkeys(name for part in frames for name in part))
    return pd.concat(non_empty, ignore_index=True).reindex(columns=columns) if frames else pd.DataFrame()
