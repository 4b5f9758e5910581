"""The results file of an evaluation. Each row is written when it is done, so that an evaluation can resume.

While the evaluation runs, the rows are in ``<name>.partial``, one JSON line each, in order of completion. At the end
they are sorted into the order of the data and written in the format of the file's suffix.
"""

from __future__ import annotations

import heapq
import itertools
import json
import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from oneturn.datasets.row_files import check_suffix, read_rows, truncate_partial_line, write_rows
from oneturn.errors import DataError

Row = dict[str, Any]
_ROW_NUMBER = "__row__"


class ResultsFile:
    """Writer of a results file.

    Args:
        path: the finished file: ``.jsonl``, ``.csv`` or ``.parquet``.
        key: identifies the evaluation: target, data and metrics.
        fresh: discard the rows of an interrupted evaluation.

    Raises:
        DataError: the suffix isn't supported, or the partial file belongs to another evaluation.
    """

    def __init__(self, path: Path, key: str, fresh: bool = False):
        check_suffix(path)
        self.path = path
        self.partial = path.with_name(path.name + ".partial")
        self._lock = threading.Lock()
        self._first_missing = 0
        self._done: set[int] = set()
        path.parent.mkdir(parents=True, exist_ok=True)
        if fresh:
            self.partial.unlink(missing_ok=True)
        self._open_partial(key)

    def done(self, number: int) -> bool:
        """Whether the row with this number is done."""
        with self._lock:
            return number < self._first_missing or number in self._done

    @property
    def count(self) -> int:
        """The number of completed rows."""
        return self._first_missing + len(self._done)

    def add(self, number: int, row: Row) -> None:
        """Append a row to the partial file; after this returns, the row survives the process."""
        line = json.dumps({_ROW_NUMBER: number, **row}, ensure_ascii=False, default=str) + "\n"
        with self._lock:
            self._file.write(line)
            self._file.flush()
            self._mark_done(number)

    def discard(self, numbers: Collection[int]) -> None:
        """Remove rows, so that they are run again when the evaluation resumes, and close the partial file."""
        self._file.close()
        temporary = self.partial.with_name(self.partial.name + ".tmp")
        with self.partial.open(encoding="utf-8") as old, temporary.open("w", encoding="utf-8") as new:
            new.write(next(old))
            new.writelines(line for line in old if json.loads(line)[_ROW_NUMBER] not in numbers)
        temporary.replace(self.partial)

    def finish(self) -> None:
        """Write the rows in the order of the data and in the file's format; delete the partial file."""
        self._file.close()
        write_rows(self.path, self)
        self.partial.unlink()

    def close(self) -> None:
        """Close the partial file; the same evaluation can resume from it."""
        self._file.close()

    def __iter__(self) -> Iterator[Row]:
        """The rows in the order of the data; only rows that are out of order are held in memory."""
        waiting: list[tuple[int, int, Row]] = []
        next_number = 0
        for position, row in enumerate(self._lines()):
            heapq.heappush(waiting, (row.pop(_ROW_NUMBER), position, row))
            while waiting and waiting[0][0] == next_number:
                yield heapq.heappop(waiting)[2]
                next_number += 1
        yield from (row for _, _, row in sorted(waiting, key=lambda entry: entry[:2]))

    def _open_partial(self, key: str) -> None:
        if self.partial.exists():
            truncate_partial_line(self.partial)
            self._resume(key)
            self._file = self.partial.open("a", encoding="utf-8")
            return
        self._file = self.partial.open("w", encoding="utf-8")
        self._file.write(json.dumps({"evaluation": key}) + "\n")
        self._file.flush()

    def _resume(self, key: str) -> None:
        with self.partial.open(encoding="utf-8") as file:
            head = file.readline()
        if head and json.loads(head) != {"evaluation": key}:
            raise DataError(
                f"{self.partial} belongs to another evaluation: the program, its LM, the data or the metrics changed. "
                "Name another file, or start over (fresh=True, --fresh)."
            )
        for row in self._lines():
            self._mark_done(row[_ROW_NUMBER])

    def _mark_done(self, number: int) -> None:
        self._done.add(number)
        while self._first_missing in self._done:
            self._done.remove(self._first_missing)
            self._first_missing += 1

    def _lines(self) -> Iterator[Row]:
        with self.partial.open(encoding="utf-8") as file:
            next(file, None)
            for line in file:
                yield json.loads(line)


_READ_BATCH = 5000
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
        yield pd.DataFrame(batch)


def _read(path: Path) -> Iterator[Row]:
    for place, cells in read_rows(path, infer_types=True):
        if isinstance(cells, str):
            raise DataError(f"{path} can't be read: {place}: {cells}")
        yield cells


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
