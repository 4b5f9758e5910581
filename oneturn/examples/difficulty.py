"""Examples that no program gets right, or that every program does: neither tells programs apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from oneturn.datasets import read_rows
from oneturn.errors import DataError
from oneturn.examples.duplicates import asked
from oneturn.examples.files import Row
from oneturn.examples.findings import Finding, Severity
from oneturn.examples.near import same_text

RIGHT = 0.999
WRONG = 0.5


def read_results(path: Path, inputs: Sequence[str]) -> dict[str, list[float]]:
    """Return the scores of each example, by its id or by what it asks, from a file that ``oneturn evaluate`` wrote.

    Raises:
        DataError: the file can't be read, or a row of it has no score.
    """
    scores: dict[str, list[float]] = {}
    for place, cells in read_rows(path):
        score = _score(path, place, cells)
        for key in _keys(cells, inputs):
            scores.setdefault(key, []).append(score)
    return scores


def difficulty(
    rows: Sequence[Row], results: Mapping[Path, Mapping[str, list[float]]], inputs: Sequence[str]
) -> Iterator[Finding]:
    """Note the examples whose every score is below 0.5, and those whose every score is 1.

    Of the test split only the numbers are told: what is tuned on them isn't measured by them.

    Args:
        rows: of all splits.
        results: by the files that they stand in, what :func:`read_results` returned; a file that tells nothing of any
            row is warned of.
        inputs: the fields that ask.
    """
    for path, scores in results.items():
        if not any(_of(row, scores, inputs) for row in rows):
            fix = "Give what oneturn evaluate --output wrote for train or dev of this agent."
            yield Finding(Severity.warning, "results", f"{path} has no row of these examples.", fix)
    every = [(row, [score for scores in results.values() for score in _of(row, scores, inputs)]) for row in rows]
    for split in dict.fromkeys(row.split for row in rows):
        measured = [(row, found) for row, found in every if row.split == split]
        never = [(row, found) for row, found in measured if found and max(found) < WRONG]
        always = [(row, found) for row, found in measured if found and min(found) >= RIGHT]
        if split == "test":
            total = sum(bool(found) for _, found in measured)
            yield from _counted(len(never), len(always), total)
            continue
        for row, found in never:
            message = f"no program gets {row.name} right ({_evaluations(found)}, best score {max(found):.2f})."
            yield _note("never-right", row, message, "See whether its label is right, and whether it can be answered.")
        for row, found in always:
            message = f"every program gets {row.name} right ({_evaluations(found)})."
            yield _note("always-right", row, message, "A harder example would tell programs apart.")


def _counted(never: int, always: int, total: int) -> Iterator[Finding]:
    if total:
        message = f"of {total} measured examples of test no program gets {never} right, and every program {always}."
        yield Finding(Severity.note, "never-right", message, "Which ones isn't told: nothing is tuned on test.")


def _score(path: Path, place: str, cells: Any) -> float:
    try:
        return float(cells["score"])
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{path}, {place}: has no score; give a file that oneturn evaluate --output wrote.") from None


def _keys(values: Any, inputs: Sequence[str]) -> list[str]:
    ident, text = values.get("id"), same_text(asked(values, inputs))
    return [f"id {ident}"] if ident else [f"asks {text}"] if text else []


def _of(row: Row, scores: Mapping[str, list[float]], inputs: Sequence[str]) -> list[float]:
    by_id = scores.get(f"id {row.values.get('id')}", [])
    return by_id or scores.get(f"asks {same_text(asked(row.values, inputs))}", [])


def _evaluations(scores: list[float]) -> str:
    return "1 evaluation" if len(scores) == 1 else f"{len(scores)} evaluations"


def _note(check: str, row: Row, message: str, fix: str) -> Finding:
    return Finding(Severity.note, check, message, fix, row.file, row.place)
