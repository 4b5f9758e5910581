"""The results file of an evaluation. Each row is written when it is done, so that an evaluation can resume.

While the evaluation runs, the rows are in ``<name>.partial``, one JSON line each, in order of completion. At the end
they are sorted into the order of the data and written in the format of the file's suffix. ``.<name>.evaluation`` then
records which evaluation it was, so that the same one isn't paid for again: see ``results_record``.
"""

from __future__ import annotations

import errno
import fcntl
import heapq
import json
import logging
import os
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

import pyarrow as pa

from oneturn.core.row_files import check_suffix, truncate_partial_line
from oneturn.errors import DataError
from oneturn.evaluation.results_reader import holds_results
from oneturn.evaluation.results_record import is_recorded, recorded_evaluation, write_recorded

Row = dict[str, Any]
_ROW_NUMBER = "__row__"
_log = logging.getLogger(__name__)
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)
"""Error numbers of file systems without locks, such as some network file systems."""


class ResultsFile:
    """Writer of a results file. The partial file is locked until the writer is closed.

    Args:
        path: the finished file: ``.jsonl``, ``.csv`` or ``.parquet``.
        key: identifies the evaluation: target, data and metrics.
        fresh: start over, and replace the rows of an interrupted or finished evaluation.

    Attributes:
        finished: whether the file already has all rows of this evaluation; then nothing can be added.

    Raises:
        DataError: the suffix isn't supported; the file or the partial file belongs to another evaluation; the file is
            anything else; another process is writing it; or it can't be written.
    """

    def __init__(self, path: Path, key: str, fresh: bool = False):
        check_suffix(path)
        self.path = path
        self.partial = path.with_name(path.name + ".partial")
        self._key = key
        self._lock = threading.Lock()
        self._first_missing = 0
        self._done: set[int] = set()
        with self._writing():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._open_locked()
        try:
            with self._writing():
                # An empty partial file, left by a kill, doesn't hide a finished one.
                self.finished = not fresh and self._is_finished()
                if fresh or not (self.finished or self._has_begun()):
                    _check_replaceable(path, fresh)
                if fresh:
                    self._file.truncate(0)
                if not self.finished:
                    self._open_partial(key)
        except BaseException:
            if not self._has_begun():
                self.partial.unlink(missing_ok=True)
            self._file.close()
            raise

    def done(self, number: int) -> bool:
        """Whether the row with this number is done."""
        with self._lock:
            return number < self._first_missing or number in self._done

    @property
    def count(self) -> int:
        """The number of completed rows."""
        return self._first_missing + len(self._done)

    def add(self, number: int, row: Row) -> None:
        """Append a row to the partial file; after this returns, the row survives the process.

        Raises:
            DataError: the file can't be written.
        """
        line = json.dumps({_ROW_NUMBER: number, **row}, ensure_ascii=False, default=str)
        with self._lock, self._writing():
            self._write(line)
            self._mark_done(number)

    def discard(self, numbers: Collection[int]) -> None:
        """Remove rows, so that they are run again when the evaluation resumes, and close the partial file."""
        temporary = self.partial.with_name(self.partial.name + ".tmp")
        with self._writing():
            lines = [json.dumps(row, ensure_ascii=False) for row in self._lines() if row[_ROW_NUMBER] not in numbers]
            text = "".join(f"{line}\n" for line in [self._header(), *lines])
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(self.partial)
        self._file.close()

    def finish(self) -> None:
        """Write the rows in the order of the data and in the file's format; delete the partial file.

        Raises:
            DataError: the file can't be written; the rows stay in the partial file.
        """
        with self._writing():
            write_recorded(self.path, self, self._key)
            self.partial.unlink()
        self._file.close()

    def close(self) -> None:
        """Close the partial file; the same evaluation can resume from it."""
        if self.finished and not self._file.closed:
            self.partial.unlink(missing_ok=True)
        self._file.close()

    def __iter__(self) -> Iterator[Row]:
        """The rows in the order of the data, each once; only rows that are out of order are held in memory."""
        waiting: list[tuple[int, int, Row]] = []
        next_number = 0
        for position, row in enumerate(self._lines()):
            if (number := row.pop(_ROW_NUMBER)) < next_number:
                continue
            heapq.heappush(waiting, (number, position, row))
            while waiting and waiting[0][0] <= next_number:
                number, _, first = heapq.heappop(waiting)
                if number == next_number:
                    yield first
                    next_number += 1
        numbers: set[int] = set()
        for number, _, row in sorted(waiting, key=lambda entry: entry[:2]):
            if number not in numbers:
                numbers.add(number)
                yield row

    def _header(self) -> str:
        return json.dumps({"evaluation": self._key})

    def _open_locked(self) -> FileIO:
        """Open the partial file and lock it; another process may finish, and delete it, in between."""
        while True:
            file = self.partial.open("ab", buffering=0)
            try:
                # The operating system releases the lock when the process ends, in any way.
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self.partial.exists() and os.path.samestat(os.fstat(file.fileno()), self.partial.stat()):
                    return file
            except BlockingIOError:
                file.close()
                raise DataError(
                    f"Another evaluation is writing {self.path}. Wait until it ends, or name another file."
                ) from None
            except OSError as error:
                if error.errno in NO_LOCKS:
                    return file
                file.close()
                raise
            file.close()

    def _has_begun(self) -> bool:
        return os.fstat(self._file.fileno()).st_size > 0

    def _is_finished(self) -> bool:
        return not self._has_begun() and recorded_evaluation(self.path) == self._key

    def _open_partial(self, key: str) -> None:
        truncate_partial_line(self.partial)
        with self.partial.open("rb") as file:
            head = file.readline()
        if not head:  # new, or the process was killed before its first line was written
            self._write(self._header())
            return
        try:
            header = json.loads(head)
        except ValueError:
            raise DataError(
                f"{self.partial}, line 1 is damaged: it names the evaluation. Start over (fresh=True, --fresh)."
            ) from None
        if header != {"evaluation": key}:
            raise DataError(
                f"{self.partial} belongs to another evaluation: the program, its LM, the data or the metrics changed. "
                "Name another file, or start over (fresh=True, --fresh)."
            )
        for row in self._lines(warn=True):
            self._mark_done(row[_ROW_NUMBER])

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Convert an error of the disk to one that says how to resume."""
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(
                f"{self.path} can't be written: {reason}. The rows so far are in {self.partial.name}: "
                "run the same command again to resume."
            ) from error

    def _write(self, line: str) -> None:
        rest = memoryview(line.encode() + b"\n")
        while rest:
            rest = rest[self._file.write(rest) or 0 :]

    def _mark_done(self, number: int) -> None:
        if number < self._first_missing:
            return
        self._done.add(number)
        while self._first_missing in self._done:
            self._done.remove(self._first_missing)
            self._first_missing += 1

    def _lines(self, warn: bool = False) -> Iterator[Row]:
        """The rows of the partial file; a damaged line is skipped, so that its row is run again."""
        with self.partial.open("rb") as file:
            next(file, None)
            for number, line in enumerate(file, start=2):
                try:
                    row = json.loads(line)
                    row[_ROW_NUMBER].bit_length()
                except (ValueError, TypeError, KeyError, AttributeError):
                    if warn:
                        _log.warning("%s, line %d is damaged; its row is run again.", self.partial, number)
                    continue
                yield row


def _check_replaceable(path: Path, fresh: bool) -> None:
    """Raise ``DataError`` if the file at ``path`` isn't one that the evaluation may replace."""
    if not path.exists() or not path.stat().st_size:
        return
    if not holds_results(path):
        raise DataError(f"{path} exists, and isn't the rows of an evaluation: name another file, or delete it.")
    if not fresh:
        raise DataError(
            f"{path} has the rows of another evaluation: the program, its LM, the data or the metrics differ, or "
            "the file was changed. Name another file, score its answers with other metrics (--rescore), or replace it "
            "(fresh=True, --fresh)."
        )


def check_rescored(path: Path, rows: Path) -> None:
    """Raise ``DataError`` if rescored ``rows`` can't be written to ``path``, because it is neither ``rows`` nor older
    rescored ones."""
    if path.exists() and rows.exists() and path.samefile(rows):
        return
    _check_replaceable(path, fresh=True)
    if path.exists() and is_recorded(path):
        raise DataError(f"{path} has the rows of another evaluation: name another file for those of {rows}.")
