"""Every answer that an LM gave in a compile, written down as it came, so that none is paid for twice.

The answers stand in one file, a JSON line each. A process that is killed, or a machine that loses its power, leaves at
worst half a line, which is passed over. The same compile asks the same requests in the same order, and so finds its own
answers: the n-th time that a request is made in a phase of it, it gets the n-th answer that was given to it.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oneturn.core.jsonl import truncate_partial_line
from oneturn.core.usage import Totals
from oneturn.errors import DataError, OneTurnError

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)
"""What a file system says that has no locks, such as some that are mounted over a network."""


@dataclass(frozen=True)
class Answered:
    """One answer.

    Attributes:
        response: as DSPy's ``lm15`` writes a response.
        seconds: what it took.
        cost: in US dollars, where the price is known.
    """

    response: dict[str, Any]
    seconds: float
    cost: float | None

    @property
    def totals(self) -> Totals:
        """What it cost."""
        usage = self.response.get("usage") or {}
        return Totals(1, int(usage.get("input_tokens") or 0), int(usage.get("output_tokens") or 0), self.cost)


@dataclass(frozen=True)
class Reached:
    """How far a compile has come.

    Attributes:
        totals: what its answers have cost by then.
        seconds: how long it has been at work by then.
    """

    totals: Totals
    seconds: float


class Journal:
    """The answers of one compile, over all its starts; no other process can have it until it is closed.

    Args:
        path: the file; it is made if it isn't there.
        fresh: forget what stands in it.

    Attributes:
        id: the same for all starts.
        totals: what the answers have cost, over all starts.
        reached: how far the compile had come when the last of the answers came that this start has got or been given
            again: what was spent later, in an earlier start, isn't in it.

    Raises:
        OneTurnError: the same compile is at work elsewhere.
        DataError: a line of the file is damaged.
    """

    def __init__(self, path: Path, fresh: bool = False):
        self._path = path
        self._lock = threading.Lock()
        self._answers: defaultdict[str, list[tuple[Answered, Reached]]] = defaultdict(list)
        self._seconds = 0.0
        self.totals = Totals()
        self.reached = Reached(self.totals, 0.0)
        self.id = ""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")
        try:
            self._take(fresh)
        except OneTurnError:
            self._file.close()
            raise
        if not self.id:
            self.id = uuid.uuid4().hex
            self._write({"id": self.id})
            _sync(path.parent)
        self._started = time.time()
        self._write({"started": self._started, "process": os.getpid(), "host": platform.node()})

    @property
    def seconds(self) -> float:
        """How long the compile has been at work, in all its starts."""
        return self._seconds + time.time() - self._started

    def close(self) -> None:
        """Note when this start ended."""
        with self._lock:
            if not self._file.closed:
                self._write({"ended": time.time()})
                self._file.close()

    def answer(self, key: str, time_asked: int) -> Answered | None:
        """The answer that a request got when it was made for the n-th time, counted from 0; ``None`` if it didn't."""
        with self._lock:
            known = self._answers.get(key, [])
            if time_asked >= len(known):
                return None
            answered, by_then = known[time_asked]
            self.reached = max(self.reached, by_then, key=lambda reached: reached.totals.lm_calls)
            return answered

    def add(self, key: str, answered: Answered) -> None:
        """Write an answer down; when this returns, it survives the process, and the machine's power."""
        line = {
            "request": key,
            "at": time.time(),
            "seconds": round(answered.seconds, 3),
            "cost": answered.cost,
            "response": answered.response,
        }
        with self._lock:
            self._write(line)
            self.reached = self._keep(key, answered, self.seconds)

    def _keep(self, key: str, answered: Answered, seconds: float) -> Reached:
        self.totals += answered.totals
        by_then = Reached(self.totals, seconds)
        self._answers[key].append((answered, by_then))
        return by_then

    def _take(self, fresh: bool) -> None:
        try:
            # The system gives it free when the process ends, however it ends.
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OneTurnError(
                f"This compile is at work already{self._holder()}. Wait until it has ended, or end it: then the same "
                "command goes on from there."
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        if fresh:
            self._file.truncate(0)
        truncate_partial_line(self._path)
        self._read()

    def _holder(self) -> str:
        starts = [line for line in self._lines() if "process" in line]
        return f", in process {starts[-1]['process']} on {starts[-1]['host']}" if starts else ""

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def _read(self) -> None:
        started = last = 0.0
        for number, line in enumerate(self._lines(), start=1):
            try:
                if "id" in line:
                    self.id = line["id"]
                elif "started" in line:
                    self._seconds += last - started
                    started = last = line["started"]
                elif "ended" in line:
                    last = line["ended"]
                else:
                    last = line["at"]
                    answered = Answered(line["response"], line["seconds"], line["cost"])
                    self._keep(line["request"], answered, self._seconds + last - started)
            except KeyError as missing:
                raise self._damaged(number, f"it lacks {missing}") from None
        self._seconds += last - started

    def _lines(self) -> Iterator[dict[str, Any]]:
        """The whole lines."""
        with self._path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                if not raw.endswith(b"\n"):
                    return
                try:
                    line = json.loads(raw)
                except ValueError as error:
                    raise self._damaged(number, str(error)) from None
                if not isinstance(line, dict):
                    raise self._damaged(number, "it is no object")
                yield line

    def _damaged(self, number: int, reason: str) -> DataError:
        return DataError(
            f"{self._path}, line {number}, isn't what a compile has written ({reason}). Take the line out, and what it "
            "held is asked again; or start over: --fresh (fresh=True)."
        )


def _sync(folder: Path) -> None:
    """Let a file that was made in a folder survive the machine's power."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


class Cursor:
    """How often each request was made in one phase of a compile."""

    def __init__(self) -> None:
        self._asked: Counter[str] = Counter()
        self._lock = threading.Lock()

    def next(self, key: str) -> int:
        """The number of this time, from 0."""
        with self._lock:
            self._asked[key] += 1
            return self._asked[key] - 1
