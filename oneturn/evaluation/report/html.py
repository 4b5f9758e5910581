"""The report as one HTML file: no request of any kind, no script but its own."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from oneturn.evaluation.report import figures as charts
from oneturn.evaluation.report.figures import compared, figures
from oneturn.evaluation.report.rows import Columns, Row, records, row_view
from oneturn.evaluation.result import Evaluation
from oneturn.evaluation.results_file import check_rows

ROWS = 10_000
"""So many rows stand in the table: of more, those that didn't pass or that changed come first."""


def rows_of(evaluation: Evaluation, baseline: Evaluation | None, category: str, pass_score: float) -> Iterator[Row]:
    """The rows, with ``before``, the baseline's of the same example, and ``change``, the difference in score."""
    columns = Columns.of(evaluation.rows)
    olds = _before(evaluation, baseline) if baseline is not None else None
    old_columns = Columns.of(baseline.rows) if baseline is not None else columns
    for place, record in enumerate(records(evaluation.rows)):
        row = row_view(record, place + 1, columns, category, pass_score)
        old = row_view(olds[place], place + 1, old_columns, category, pass_score) if olds and olds[place] else None
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


def write_report(
    path: str | Path,
    evaluation: Evaluation,
    baseline: Evaluation | None = None,
    *,
    title: str = "Evaluation",
    names: tuple[str, str] = ("baseline", "this evaluation"),
    category: str = "category",
    pass_score: float = 1.0,
) -> Path:
    """Write what an evaluation found as one HTML file, which opens from disk and asks the network for nothing.

    Args:
        path: the file; its folder is made.
        evaluation: what is reported.
        baseline: an evaluation of the same examples, to compare with.
        title: what the page is called.
        names: what the baseline and the evaluation are called.
        category: the label that rows are grouped by, if they have it.
        pass_score: the score, 0 to 1, from which a row has passed.

    Returns:
        The file.

    Raises:
        DataError: there are no rows, or they aren't an evaluation's; or the baseline is of other examples.
    """
    written = Path(path)
    text = html(evaluation, baseline, title=title, names=names, category=category, pass_score=pass_score)
    written.parent.mkdir(parents=True, exist_ok=True)
    written.write_text(text, encoding="utf-8")
    return written


def html(
    evaluation: Evaluation,
    baseline: Evaluation | None,
    *,
    title: str,
    names: tuple[str, str],
    category: str,
    pass_score: float,
) -> str:
    """The page's text; see :func:`write_report`."""
    for name, side in zip(names, (baseline, evaluation), strict=True):
        if side is not None:
            check_rows(side.rows, name)
    rows = list(rows_of(evaluation, baseline, category, pass_score))
    comparison, unmeasured = (None, None) if baseline is None else compared(evaluation, baseline, names)
    shown = shown_of(rows)
    style, script = _asset("report.css"), _asset("report.js")
    found = figures(evaluation, baseline, category, pass_score)
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return page.from_string(_asset("report.html.jinja")).render(
        title=title,
        names=names,
        figures=found,
        comparison=comparison,
        unmeasured=unmeasured,
        passes=passes(rows),
        latency=charts.latency([row["seconds"] for row in rows if row["seconds"] is not None and not row["error"]]),
        tokens=_tokens(rows),
        differences=charts.differences([row["change"] for row in rows if row["change"] is not None]),
        shown=len(shown),
        categories=list(dict.fromkeys(row["category"] for row in shown if row["category"])),
        data=_embedded({"rows": shown, "names": names, "compared": baseline is not None}),
        style=Markup(style),  # noqa: S704 - our own file
        script=Markup(script),  # noqa: S704 - our own file
        style_hash=_hash(style),
        script_hash=_hash(script),
        made=datetime.now(timezone.utc).strftime("%d %B %Y, %H:%M UTC"),
        version=version("oneturn"),
    )


def _tokens(rows: Sequence[Row]) -> charts.Chart:
    used = [((row["read"] or 0) + (row["written"] or 0), row["score"]) for row in rows]
    counted = [(tokens, score) for tokens, score in used if tokens]
    return charts.score_against_tokens([tokens for tokens, _ in counted], [score for _, score in counted])


def _embedded(data: Any) -> Markup:
    """JSON that can't end the script element it stands in, whatever the texts hold."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return Markup(text)  # noqa: S704 - no mark of HTML is left


def _asset(name: str) -> str:
    return (files("oneturn.evaluation.report") / "assets" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
