"""The rows of an evaluation in a file, written as they come, so that none is lost and none is done twice.

While the evaluation runs they stand in ``<name>.partial``, a JSON line each, in the order in which they were done. At
the end they are put into the order of the data, in the format that the name says.
"""

from __future__ import annotations

import heapq
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from oneturn.datasets.row_files import check_suffix, read_rows, truncate_partial_line, write_rows
from oneturn.errors import DataError

Row = dict[str, Any]
_NUMBER = "__row__"


class ResultsFile:
    """The rows that are done.

    Args:
        path: where the finished rows go: ``.jsonl``, ``.csv`` or ``.parquet``.
        key: what the evaluation is: of what, with what, by what.
        fresh: forget what an earlier start has written.

    Raises:
        DataError: the file can't have this name; or it holds another evaluation.
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
        self._take_up(key)

    def done(self, number: int) -> bool:
        """Whether a row of the data has been done."""
        with self._lock:
            return number < self._first_missing or number in self._done

    @property
    def count(self) -> int:
        """How many rows have been done."""
        return self._first_missing + len(self._done)

    def add(self, number: int, row: Row) -> None:
        """Write a row down; when this returns, it survives the process."""
        line = json.dumps({_NUMBER: number, **row}, ensure_ascii=False, default=str) + "\n"
        with self._lock:
            self._file.write(line)
            self._file.flush()
            self._note(number)

    def finish(self) -> None:
        """Put the rows into the order of the data, in the file's own format; the partial file goes."""
        self._file.close()
        write_rows(self.path, self)
        self.partial.unlink()

    def close(self) -> None:
        """Leave off: the same evaluation goes on from here."""
        self._file.close()

    def __iter__(self) -> Iterator[Row]:
        """The rows in the order of the data; memory holds those only that are out of their order."""
        waiting: list[tuple[int, int, Row]] = []
        wanted = 0
        for place, row in enumerate(self._lines()):
            heapq.heappush(waiting, (row.pop(_NUMBER), place, row))
            while waiting and waiting[0][0] == wanted:
                yield heapq.heappop(waiting)[2]
                wanted += 1
        yield from (row for _, _, row in sorted(waiting, key=lambda found: found[:2]))

    def _take_up(self, key: str) -> None:
        if self.partial.exists():
            truncate_partial_line(self.partial)
            self._read(key)
            self._file = self.partial.open("a", encoding="utf-8")
            return
        self._file = self.partial.open("w", encoding="utf-8")
        self._file.write(json.dumps({"evaluation": key}) + "\n")
        self._file.flush()

    def _read(self, key: str) -> None:
        with self.partial.open(encoding="utf-8") as file:
            head = file.readline()
        if head and json.loads(head) != {"evaluation": key}:
            raise DataError(
                f"{self.partial} is of another evaluation: the program, its LM, the data or the metrics have changed. "
                "Name another file, or start over (fresh=True, --fresh)."
            )
        for row in self._lines():
            self._note(row[_NUMBER])

    def _note(self, number: int) -> None:
        self._done.add(number)
        while self._first_missing in self._done:
            self._done.remove(self._first_missing)
            self._first_missing += 1

    def _lines(self) -> Iterator[Row]:
        with self.partial.open(encoding="utf-8") as file:
            next(file, None)
            for line in file:
                yield json.loads(line)


_RESULTS_TOGETHER = 5000
Part = Callable[[pd.DataFrame], pd.DataFrame]


def read_results(path: Path, part: Part | None = None, most: int | None = None) -> pd.DataFrame:
    """The rows of a file, as they were written.

    Args:
        path: ``.jsonl``, ``.csv`` or ``.parquet``.
        part: what to keep of some thousands of rows, so that memory never holds the rest.
        most: read the first rows only, so many at least.

    Raises:
        DataError: the file isn't there, can't be read, or holds no evaluation's rows.
    """
    check_suffix(path)
    if not path.is_file():
        raise DataError(f"{path} isn't there: write it with oneturn evaluate --output {path}.")
    rows = _together(_parts(path), part, most)
    check_rows(rows, str(path))
    return rows


def check_rows(rows: pd.DataFrame, name: str) -> None:
    """Raise ``DataError`` if these aren't the rows of an evaluation."""
    if rows.empty:
        raise DataError(f"{name} has no rows: give an evaluation's.")
    for column in ("score", "error"):
        if column not in rows:
            raise DataError(
                f"{name} has no column {column!r}: give what oneturn.evaluate returns, or what --output wrote."
            )


def _parts(path: Path) -> Iterator[pd.DataFrame]:
    rows = _read(path)
    while part := list(itertools.islice(rows, _RESULTS_TOGETHER)):
        yield pd.DataFrame(part)


def _read(path: Path) -> Iterator[Row]:
    for place, cells in read_rows(path, infer_types=True):
        if isinstance(cells, str):
            raise DataError(f"{path} can't be read: {place}: {cells}")
        yield cells


def _together(parts: Iterator[pd.DataFrame], keep: Part | None, most: int | None) -> pd.DataFrame:
    found: list[pd.DataFrame] = []
    for part in parts:
        if part.empty:
            continue
        if "score" in part and "error" in part:
            found.append(part if keep is None else keep(part))
        else:
            found.append(part)
        if most is not None and sum(map(len, found)) >= most:
            break
    # A column that is empty in one part and not in another has a type in the other.
    parts_with = [part.dropna(axis="columns", how="all") for part in found]
    columns = list(dict.fromkeys(name for part in found for name in part))
    return pd.concat(parts_with, ignore_index=True).reindex(columns=columns) if found else pd.DataFrame()
