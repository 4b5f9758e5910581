"""The journal of a compile: every LM answer, recorded as it arrives, so that no answer is paid for twice.

The journal is one file in JSON Lines format. If the process is killed or the machine loses power, at most one partial
line remains, which is ignored. The same compile makes the same requests in the same order: the n-th time that a request
is made in a phase, it gets the n-th answer recorded for it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from oneturn.core._dspy import response_from_dict
from oneturn.core.row_files import truncate_partial_line
from oneturn.core.usage import Usage
from oneturn.errors import DataError, OneTurnError

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)
"""Error numbers of file systems without locks, such as some network file systems."""


class JournalUnwritable(BaseException):
    """The journal can't be written, such as on a full disk.

    Not an ``Exception``: an optimizer must not treat it as a failed example.
    """


@dataclass(frozen=True)
class JournalEntry:
    """One answer.

    Attributes:
        response: as DSPy's ``lm15`` writes a response.
        seconds: the time it took.
        usage: the usage of the call.
    """

    response: dict[str, Any]
    seconds: float
    usage: Usage


@dataclass(frozen=True)
class Progress:
    """Progress of a compile.

    Attributes:
        totals: usage so far; see :class:`Journal`.
        seconds: run time so far.
    """

    totals: Usage
    seconds: float


class Journal:
    """The LM answers of one compile, over all its runs. The file is locked until the journal is closed.

    Args:
        path: the file; it is created if it doesn't exist.
        fresh: discard its content.

    Attributes:
        id: identifies the compile; the same for all runs.
        totals: usage over all runs. Its cost is that of the calls whose price is known; ``None`` if no price is.
        progress: progress at the latest answer that this run has received or replayed. It excludes the later usage of
            an earlier run.

    Raises:
        OneTurnError: another process is running the same compile, or the file can't be written.
        DataError: a line of the file is damaged.
    """

    def __init__(self, path: Path, fresh: bool = False):
        self._path = path
        self._lock = threading.Lock()
        self._answers: defaultdict[str, list[tuple[JournalEntry, Progress]]] = defaultdict(list)
        self._seconds = 0.0
        self.totals = Usage()
        self.progress = Progress(self.totals, 0.0)
        self.id = ""
        self._failed = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise OneTurnError(f"{path} can't be written: {error.strerror or error}.") from error
        try:
            self._open_journal(fresh)
            if not self.id:
                self.id = uuid.uuid4().hex
                self._write({"id": self.id})
                _fsync_directory(path.parent)
            self._started = time.time()
            self._write({"started": self._started, "process": os.getpid(), "host": platform.node()})
        except (OneTurnError, JournalUnwritable) as error:
            self._file.close()
            if isinstance(error, JournalUnwritable):
                raise OneTurnError(str(error)) from error
            raise

    @property
    def seconds(self) -> float:
        """Run time of the compile, over all its runs."""
        return self._seconds + time.time() - self._started

    def close(self) -> None:
        """Record the end of this run and release the file."""
        with self._lock:
            if not self._file.closed:
                try:
                    if not self._failed:
                        self._write({"ended": time.time()})
                except JournalUnwritable:
                    pass  # the disk is full: what it holds is complete without this line
                finally:
                    self._file.close()

    def answer(self, key: str, occurrence: int) -> JournalEntry | None:
        """Return the recorded answer to a request.

        Args:
            key: hash of the request.
            occurrence: how often the request was made before, from 0.

        Returns:
            The answer; ``None`` if none is recorded for this occurrence.
        """
        with self._lock:
            entries = self._answers.get(key, [])
            if occurrence >= len(entries):
                return None
            entry, progress = entries[occurrence]
            self.progress = max(self.progress, progress, key=lambda each: each.totals.lm_calls)
            return entry

    def add(self, key: str, entry: JournalEntry) -> None:
        """Record an answer. It is synced to disk when this method returns."""
        line = {
            "request": key,
            "at": time.time(),
            "seconds": round(entry.seconds, 3),
            "usage": entry.usage.to_dict(),
            "response": entry.response,
        }
        with self._lock:
            self._write(line)
            self.progress = self._append(key, entry, self.seconds)

    def _append(self, key: str, entry: JournalEntry, seconds: float) -> Progress:
        costs = [usage.cost for usage in (self.totals, entry.usage) if usage.cost is not None]
        self.totals = replace(self.totals + entry.usage, cost=sum(costs) if costs else None)
        progress = Progress(self.totals, seconds)
        self._answers[key].append((entry, progress))
        return progress

    def _open_journal(self, fresh: bool) -> None:
        try:
            # The operating system releases the lock when the process ends, in any way.
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OneTurnError(
                f"This compile is already running{self._describe_holder()}. Wait until it ends, or stop it; then run "
                "the same command again to resume."
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        if fresh:
            self._file.truncate(0)
        truncate_partial_line(self._path)
        self._read()

    def _describe_holder(self) -> str:
        start_lines = [line for line in self._lines() if "process" in line]
        return f", in process {start_lines[-1]['process']} on {start_lines[-1]['host']}" if start_lines else ""

    def _write(self, line: dict[str, Any]) -> None:
        """Append a line and sync it; a line that can't be written whole is removed.

        Raises:
            JournalUnwritable: the disk is full, or the file can't be written.
        """
        text = json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n"
        # Half a surrogate pair, which UTF-8 can't encode, becomes its JSON escape.
        rest = memoryview(text.encode(errors="backslashreplace"))
        size = os.fstat(self._file.fileno()).st_size
        try:
            if self._failed:
                raise OSError(errno.EIO, "an earlier answer couldn't be written")
            while rest:
                rest = rest[self._file.write(rest) or 0 :]
            os.fsync(self._file.fileno())
        except OSError as error:
            self._failed = True
            os.ftruncate(self._file.fileno(), size)
            raise JournalUnwritable(
                f"{self._path} can't be written: {error.strerror}. The answers before are saved: make room and run the "
                "same command again to resume."
            ) from error

    def _read(self) -> None:
        started = last = 0.0
        for number, line in enumerate(self._lines(), start=1):
            try:
                if "id" in line:
                    self.id = _typed(line, "id", str)
                elif "started" in line:
                    self._seconds += last - started
                    started = last = _typed(line, "started", float)
                elif "ended" in line:
                    last = _typed(line, "ended", float)
                else:
                    last = _typed(line, "at", float)
                    self._append(_typed(line, "request", str), _entry(line), self._seconds + last - started)
            except KeyError as missing:
                raise self._damaged(number, f"it lacks {missing}") from None
            except (TypeError, ValueError, AttributeError) as error:
                raise self._damaged(number, str(error)) from None
        self._seconds += last - started

    def _lines(self) -> Iterator[dict[str, Any]]:
        """Yield the parsed lines; a partial line at the end is ignored."""
        with self._path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                if not raw.endswith(b"\n"):
                    return
                try:
                    line = json.loads(raw)
                except ValueError as error:
                    raise self._damaged(number, str(error)) from None
                if not isinstance(line, dict):
                    raise self._damaged(number, "it isn't a JSON object")
                yield line

    def _damaged(self, number: int, reason: str) -> DataError:
        return DataError(
            f"{self._path}, line {number} is damaged ({reason}). Remove the line, and its request is sent again; or "
            "start over with --fresh (fresh=True)."
        )


def _typed(line: dict[str, Any], name: str, kind: type) -> Any:
    value = line[name]
    if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):
        raise TypeError(f"its {name} is {value!r:.40}")
    return value


def _entry(line: dict[str, Any]) -> JournalEntry:
    usage = _typed(line, "usage", dict)
    for name, count in usage.items():
        if count is not None:
            _typed(usage, name, float)
    response = _typed(line, "response", dict)
    response_from_dict(response)  # a replay must not fail in the middle of a recipe
    return JournalEntry(response, _typed(line, "seconds", float), Usage.from_dict(usage))


def _fsync_directory(folder: Path) -> None:
    """Sync a directory, so that a new file in it survives a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Cursor:
    """Counts how often each request was made in one phase of a compile."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def next(self, key: str) -> int:
        """Count a request; return how often it was made before."""
        with self._lock:
            self._counts[key] += 1
            return self._counts[key] - 1
