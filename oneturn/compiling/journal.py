"""Every answer that an LM gave in a compile, written down as it came, so that none is paid for twice.

The answers stand in one file, a JSON line each. A process that is killed leaves at worst half a line, which is passed
over. The same compile asks the same requests in the same order, and so finds its own answers: the n-th time that a
request is made in a phase of it, it gets the n-th answer that was given to it.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oneturn.compiling.totals import Totals


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


class Journal:
    """The answers of one compile, over all its starts.

    Args:
        path: the file; it is made if it isn't there.

    Attributes:
        id: the same for all starts.
        totals: what the answers have cost, over all starts.
    """

    def __init__(self, path: Path):
        self._path = path
        self._lock = threading.Lock()
        self._answers: defaultdict[str, list[Answered]] = defaultdict(list)
        self._seconds = 0.0
        self.totals = Totals()
        self.id = ""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._read()
        self._file = path.open("a", encoding="utf-8")
        if not self.id:
            self.id = uuid.uuid4().hex
            self._write({"id": self.id})
        self._started = time.time()
        self._write({"started": self._started})

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
            return known[time_asked] if time_asked < len(known) else None

    def add(self, key: str, answered: Answered) -> None:
        """Write an answer down; when this returns, it survives the process."""
        line = {
            "request": key,
            "at": time.time(),
            "seconds": round(answered.seconds, 3),
            "cost": answered.cost,
            "response": answered.response,
        }
        with self._lock:
            self._write(line)
            self._keep(key, answered)

    def _keep(self, key: str, answered: Answered) -> None:
        self._answers[key].append(answered)
        self.totals += answered.totals

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")
        self._file.flush()

    def _read(self) -> None:
        started = last = 0.0
        for line in self._lines():
            if "id" in line:
                self.id = line["id"]
            elif "started" in line:
                self._seconds += last - started
                started = last = line["started"]
            elif "ended" in line:
                last = line["ended"]
            else:
                last = line["at"]
                self._keep(line["request"], Answered(line["response"], line["seconds"], line["cost"]))
        self._seconds += last - started

    def _lines(self) -> Iterator[dict[str, Any]]:
        """The whole lines; what a killed process left half written is cut off."""
        if not self._path.exists():
            return
        whole = 0
        with self._path.open("rb") as file:
            for raw in file:
                if not raw.endswith(b"\n"):
                    break
                whole += len(raw)
                yield json.loads(raw)
        if whole < self._path.stat().st_size:
            with self._path.open("r+b") as file:
                file.truncate(whole)


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
