"""The rows as the page shows them, each beside the baseline's of the same example."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from oneturn.evaluation import Evaluation
from oneturn.reporting.columns import Columns
from oneturn.reporting.rows import Row, records, told

ROWS = 10_000
"""So many rows stand in the table: of more, those that didn't pass or that changed come first."""


def rows_of(evaluation: Evaluation, baseline: Evaluation | None, category: str, pass_score: float) -> Iterator[Row]:
    """The rows, with ``before``, the baseline's of the same example, and ``change``, the difference in score."""
    columns = Columns.of(evaluation.rows)
    olds = _before(evaluation, baseline) if baseline is not None else None
    old_columns = Columns.of(baseline.rows) if baseline is not None else columns
    for place, record in enumerate(records(evaluation.rows)):
        row = told(record, place + 1, columns, category, pass_score)
        old = told(olds[place], place + 1, old_columns, category, pass_score) if olds and olds[place] else None
        yield {**row, "change": None if old is None else row["score"] - old["score"], "before": _brief(old)}


def _brief(old: Row | None) -> Row | None:
    return None if old is None else {name: old[name] for name in ("score", "state", "answer", "feedback", "error")}


def shown_of(rows: Sequence[Row]) -> list[Row]:
    """The rows for which the table has room."""
    if len(rows) <= ROWS:
        return list(rows)
    first = sorted(rows, key=lambda row: (row["state"] != "error", not row["change"], row["state"] == "passed"))
    return sorted(first[:ROWS], key=lambda row: row["n"])


def passes(rows: Sequence[Row]) -> tuple[int, int]:
    """How many rows pass now that didn't, and how many don't that did."""
    pairs = [(row["before"]["state"] == "passed", row["state"] == "passed") for row in rows if row["before"]]
    return pairs.count((False, True)), pairs.count((True, False))


def _before(evaluation: Evaluation, baseline: Evaluation) -> list[Row]:
    """For each row, the baseline's of the same example: the same repeat where it has as many, else their mean score.

    Empty for an example that the baseline doesn't have.
    """
    names = [name for name in Columns.of(evaluation.rows).labels if name in Columns.of(baseline.rows).labels]
    mine, theirs = ([(_key(row, names), row) for row in records(side.rows)] for side in (evaluation, baseline))
    wanted, known = _grouped(mine), _grouped(theirs)
    seen: dict[str, int] = {}
    found: list[Row] = []
    for key, _ in mine:
        rows, place = known.get(key, []), seen.get(key, 0)
        seen[key] = place + 1
        if len(rows) == len(wanted[key]):
            found.append(rows[place])
        else:
            found.append({**rows[0], "score": sum(row["score"] for row in rows) / len(rows)} if rows else {})
    return found


def _grouped(keyed: Sequence[tuple[str, Row]]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for key, row in keyed:
        groups.setdefault(key, []).append(row)
    return groups


def _key(row: Row, names: Sequence[str]) -> str:
    return json.dumps([row.get(name) for name in names], sort_keys=True)
