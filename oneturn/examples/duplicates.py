"""Questions that occur twice, or nearly: within a split, and, which is worse, in two."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from oneturn.examples.files import Row
from oneturn.examples.findings import Finding, Severity
from oneturn.examples.near import NEAR, Pair, near_pairs, same_text

_NOTHING: tuple[Any, ...] = (None, {"messages": []})  # the latter is a dspy.History
_MOST = 20  # pairs of one row that are looked at
_GUARDED = {"test": 0, "dev": 1, "train": 2}


def asked(values: Any, inputs: Sequence[str]) -> str:
    """What a row asks, as one text: its inputs; of a conversation's beginning, nothing came before."""
    return "\n".join(str(values[name]) for name in inputs if values.get(name) not in _NOTHING)


def duplicates(
    rows: Sequence[Row],
    inputs: Sequence[str],
    outputs: Sequence[str],
    threshold: float = NEAR,
    progress: bool = False,
) -> Iterator[Finding]:
    """A finding for each row that asks what another asks, or nearly so: of each other split, the worst.

    Args:
        rows: of all splits.
        inputs: the fields that ask.
        outputs: the fields that answer.
        threshold: how similar near-duplicates are, 0 to 1; see :mod:`oneturn.examples.near`.
        progress: whether to show a bar when it takes longer than two seconds.
    """
    first: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: _GUARDED[row.split]):
        text = same_text(asked(row.values, inputs))
        if text and (before := first.setdefault(text, row)) is not row:
            yield _same(before, row, outputs)
    alone = list(first.values())
    parts = [[asked(row.values, [name]) for row in alone] for name in inputs] if len(inputs) > 1 else []
    worst: dict[tuple[int, str], Pair] = {}
    for pair in near_pairs(list(first), threshold, progress, most=_MOST, parts=parts):
        place = pair.second, alone[pair.first].split
        worst[place] = max(worst.get(place, pair), pair, key=lambda found: _badness(found, alone, outputs))
    for pair in worst.values():
        yield _near(alone[pair.first], alone[pair.second], pair.similarity, outputs)


def _badness(pair: Pair, rows: Sequence[Row], outputs: Sequence[str]) -> tuple[bool, float]:
    return _agree(rows[pair.first], rows[pair.second], outputs), pair.similarity


def _same(kept: Row, row: Row, outputs: Sequence[str]) -> Finding:
    if not _agree(kept, row, outputs):
        message = f"asks what {_where(kept)} asks, and its answer is another."
        return _finding(Severity.error, "duplicate", row, message, "Find out which is right, and keep that one.")
    if kept.split != row.split:
        message = f"asks what {_where(kept)} asks."
        return _finding(Severity.error, "leak", row, message, f"Take it out of {row.split}.")
    return _finding(Severity.warning, "duplicate", row, f"asks what {_where(kept)} asks.", "Keep one of them.")


def _near(kept: Row, row: Row, similarity: float, outputs: Sequence[str]) -> Finding:
    agree = _agree(kept, row, outputs)
    and_answer = "with the same answer" if agree else "with another answer"
    message = f"asks nearly what {_where(kept)} asks ({similarity:.2f}), {and_answer}."
    if kept.split == row.split:
        return _finding(Severity.note, "near-duplicate", row, message, "Keep both only if they test two things.")
    severity = Severity.error if kept.split == "test" and agree else Severity.warning
    fix = f"Take it out of {row.split}, or ask something else." if agree else "See that neither gives the other away."
    return _finding(severity, "near-leak", row, message, fix)


def _agree(one: Row, other: Row, outputs: Sequence[str]) -> bool:
    both = [name for name in outputs if name in one.values and name in other.values]
    return all(_plain(one.values[name]) == _plain(other.values[name]) for name in both)


def _plain(value: Any) -> Any:
    return same_text(value) if isinstance(value, str) else value


def _where(row: Row) -> str:
    return f"{row.values['id']} ({row.split})" if row.values.get("id") else f"{row.file}, {row.place}"


def _finding(severity: Severity, check: str, row: Row, message: str, fix: str) -> Finding:
    return Finding(severity, check, f"{row.name} {message}", fix, row.file, row.place)
