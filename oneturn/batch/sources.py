"""Where the rows of an evaluation come from, read one after the other, whatever holds them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dspy
import pandas as pd
import pyarrow.parquet as pa_parquet
from pydantic import BaseModel

from oneturn.batch.agent_evaluation import example_fields, is_agent_evaluation
from oneturn.datasets import SUFFIXES, dataset_hash
from oneturn.errors import DataError

_BATCH = 1000


@dataclass(frozen=True)
class Unreadable:
    """A row that can't be evaluated on, and why."""

    reason: str


@dataclass(frozen=True)
class Source:
    """Rows to evaluate on.

    Attributes:
        rows: gives them anew each time: examples, and an :class:`Unreadable` for each row that is none.
        count: how many there are; ``None`` if that isn't known before.
        key: the same for the same rows.
    """

    rows: Callable[[], Iterator[dspy.Example | Unreadable]]
    count: int | None
    key: str


def source_of(data: Any, inputs: Sequence[str]) -> Source:
    """The rows of what a user gives.

    Args:
        data: examples; mappings; a ``pandas.DataFrame``; a ``.jsonl``, ``.csv`` or ``.parquet`` file; an MLflow
            dataset (``mlflow.data`` or ``mlflow.genai.datasets``); a Spark ``DataFrame``. Rows may have the format of
            MLflow's Agent Evaluation (:mod:`oneturn.batch.agent_evaluation`).
        inputs: the fields that the program is given; examples that mark their own are left as they are.

    Raises:
        DataError: it is none of these, or there are no rows.
    """
    if isinstance(data, str | Path):
        return _file(Path(data), inputs)
    if hasattr(data, "toLocalIterator"):
        return Source(lambda: examples_of((row.asDict(True) for row in data.toLocalIterator()), inputs), None, "spark")
    frame = _frame(data)
    if frame is not None:
        rows = frame.to_dict("records")
        return Source(lambda: examples_of(map(without_nan, rows), inputs), len(rows), dataset_hash(rows))
    if not isinstance(data, Sequence):
        raise DataError(
            f"{type(data).__name__} holds no rows to evaluate: give examples, a DataFrame, a dataset or a file."
        )
    if not data:
        raise DataError("There are no examples to evaluate; give at least one.")
    return Source(lambda: examples_of(data, inputs), len(data), dataset_hash(_plain(row) for row in data))


def _file(path: Path, inputs: Sequence[str]) -> Source:
    if not path.is_file():
        raise DataError(f"There is no file {path}.")
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path} has the suffix {path.suffix!r}; rows are read from {', '.join(SUFFIXES)}.")
    count = pa_parquet.read_metadata(path).num_rows if path.suffix == ".parquet" else None
    stat = path.stat()
    key = hashlib.sha256(f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}".encode()).hexdigest()
    return Source(lambda: examples_of(_READERS[path.suffix](path), inputs), count, key)


def _frame(data: Any) -> pd.DataFrame | None:
    """The data as one table, if it is one, or an MLflow dataset."""
    if isinstance(data, pd.DataFrame):
        return data
    for name in ("df", "to_df"):
        found = getattr(data, name, None)
        found = found() if callable(found) else found
        if isinstance(found, pd.DataFrame):
            return found
    return None


def _read_jsonl(path: Path) -> Iterator[dict[str, Any] | Unreadable]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                yield Unreadable(f"{path.name}, line {number}: not JSON ({error})")
                continue
            yield row if isinstance(row, dict) else Unreadable(f"{path.name}, line {number}: no JSON object")


def _read_csv(path: Path) -> Iterator[dict[str, Any]]:
    for table in pd.read_csv(path, chunksize=_BATCH):
        yield from map(without_nan, table.to_dict("records"))


def _read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    for batch in pa_parquet.ParquetFile(path).iter_batches(_BATCH):
        yield from batch.to_pylist()


_READERS: dict[str, Callable[[Path], Iterator[Any]]] = {
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}


def examples_of(rows: Iterable[Any], inputs: Sequence[str]) -> Iterator[dspy.Example | Unreadable]:
    for number, row in enumerate(rows, start=1):
        if isinstance(row, Unreadable) or (isinstance(row, dspy.Example) and row._input_keys is not None):
            yield row
            continue
        fields, named = _plain(row), inputs
        if is_agent_evaluation(fields, inputs):
            fields, named = example_fields(fields, inputs)
        if missing := [name for name in inputs if name not in fields]:
            known = ", ".join(map(str, fields))
            yield Unreadable(f"row {number} has no input {missing[0]!r}; its fields are {known}")
        else:
            yield dspy.Example(**fields).with_inputs(*named)


def _plain(row: Any) -> dict[str, Any]:
    if isinstance(row, dspy.Example):
        return dict(row.toDict())
    if isinstance(row, BaseModel):
        return row.model_dump(mode="json")
    if isinstance(row, Mapping):
        return dict(row)
    raise DataError(f"{row!r:.80} is no row: give a dspy.Example or a mapping.")


def without_nan(row: dict[str, Any]) -> dict[str, Any]:
    """A table's row, with ``None`` where pandas has NaN for what isn't there."""
    return {name: None if isinstance(value, float) and pd.isna(value) else value for name, value in row.items()}
