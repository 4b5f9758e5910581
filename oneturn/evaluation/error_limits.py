"""Stop an evaluation whose rows keep failing with the same error."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from oneturn.errors import OneTurnError

Row = dict[str, Any]
# Quoted texts; what follows "id"; words with a digit: numbers, and almost every UUID, hex or base62 id.
_VARIABLE = re.compile(r"'[^']*'|\"[^\"]*\"|(?i:(?:\b|(?<=_))id\b[\s:=]+)[\w-]+|[\w-]*\d[\w-]*")


@dataclass(frozen=True)
class ErrorLimits:
    """When to stop an evaluation; 0 is no limit.

    Attributes:
        first: stop if this many rows are done and all of them failed with the same error.
        in_a_row: stop if this many rows in a row, in order of completion, failed with the same error.
    """

    first: int = 10
    in_a_row: int = 20


class EvaluationStopped(OneTurnError):
    """An evaluation was stopped because its rows keep failing with the same error.

    Args:
        message: how many rows failed, and the first message of each kind of error.
        rows: the numbers of the rows that failed in a row; with ``output``, they are run again on resumption.
    """

    def __init__(self, message: str, rows: Iterable[int]):
        super().__init__(message)
        self.rows = tuple(rows)


def stop_at_limits(rows: Iterator[tuple[int, Row]], limits: ErrorLimits) -> Iterator[tuple[int, Row]]:
    """Yield the rows of an evaluation as they are done.

    Errors are the same if they differ in numbers, ids and quoted texts only. A row that ended in ``approval_required``
    isn't counted as failed.

    Raises:
        EvaluationStopped: a limit is reached.
    """
    kinds: dict[str, str] = {}
    streak: list[int] = []
    last, done = None, 0
    with closing(rows):  # type: ignore[type-var]  # a generator
        for number, row in rows:
            yield number, row
            done += 1
            error = row["error"] if not str(row["error"]).startswith("approval_required") else None
            if error is None:
                last, streak = None, []
                continue
            kind = _VARIABLE.sub("…", str(error))
            kinds.setdefault(kind, str(error))
            streak = [*streak, number] if kind == last else [number]
            last = kind
            if len(streak) == done == limits.first or len(streak) == limits.in_a_row:
                which = "first" if len(streak) == done else "last"
                raise EvaluationStopped(
                    f"Stopped: the {which} {len(streak)} rows failed with the same error.\n"
                    f"{bullet_list(kinds.values())}\n"
                    "Fix the cause and run the same command again, or raise the limits (max_same_errors).",
                    streak,
                )


def first_errors(errors: Iterable[Any]) -> str:
    """The first message of each kind of error, one a line."""
    kinds: dict[str, str] = {}
    for error in errors:
        kinds.setdefault(_VARIABLE.sub("…", str(error)), str(error))
    return bullet_list(kinds.values())


def bullet_list(messages: Iterable[str]) -> str:
    """Messages, one a line."""
    return "\n".join(f"  {' '.join(message.split())[:500]}" for message in list(messages)[:10])
