"""The report as one self-contained HTML file, without network requests or external scripts."""

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
from oneturn.evaluation.report.figures import compare_reported, figures
from oneturn.evaluation.report.rows import Columns, Row, records, row_view
from oneturn.evaluation.result import Evaluation
from oneturn.evaluation.results_reader import check_rows

ROWS = 10_000
"""The maximum number of rows in the table; rows that failed or changed take precedence."""


def iter_rows(evaluation: Evaluation, baseline: Evaluation | None, category: str, pass_score: float) -> Iterator[Row]:
    """The rows, each with ``before``, the baseline's row of the same example, and ``change``, the score difference."""
    columns = Columns.of(evaluation.rows)
    olds = _before(evaluation, baseline) if baseline is not None else None
    old_columns = Columns.of(baseline.rows) if baseline is not None else columns
    for index, record in enumerate(records(evaluation.rows)):
        row = row_view(record, index + 1, columns, category, pass_score)
        old = row_view(olds[index], index + 1, old_columns, category, pass_score) if olds and olds[index] else None
        yield {**row, "change": None if old is None else row["score"] - old["score"], "before": _summary(old)}


def _summary(old: Row | None) -> Row | None:
    return None if old is None else {name: old[name] for name in ("score", "state", "answer", "feedback", "error")}


def rows_shown(rows: Sequence[Row]) -> list[Row]:
    """The rows shown in the table, at most ``ROWS``."""
    if len(rows) <= ROWS:
        return list(rows)
    first = sorted(rows, key=lambda row: (row["state"] != "error", not row["change"], row["state"] == "passed"))
    return sorted(first[:ROWS], key=lambda row: row["n"])


def is_passed(rows: Sequence[Row]) -> tuple[int, int]:
    """The number of newly passed rows and of rows that no longer pass."""
    pairs = [(row["before"]["state"] == "passed", row["state"] == "passed") for row in rows if row["before"]]
    return pairs.count((False, True)), pairs.count((True, False))


def _before(evaluation: Evaluation, baseline: Evaluation) -> list[Row]:
    """For each row, the baseline's row of the same example.

    It is the same repeat if both have equally many, else the first repeat with the mean score, and empty if the
    baseline lacks the example.
    """
    names = [name for name in Columns.of(evaluation.rows).labels if name in Columns.of(baseline.rows).labels]
    current, previous = ([(_key(row, names), row) for row in records(side.rows)] for side in (evaluation, baseline))
    current_groups, previous_groups = _grouped(current), _grouped(previous)
    positions: dict[str, int] = {}
    matched: list[Row] = []
    for key, _ in current:
        rows, position = previous_groups.get(key, []), positions.get(key, 0)
        positions[key] = position + 1
        if len(rows) == len(current_groups[key]):
            matched.append(rows[position])
        else:
            matched.append({**rows[0], "score": sum(row["score"] for row in rows) / len(rows)} if rows else {})
    return matched


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
    """Write an evaluation report as one self-contained HTML file, which makes no network requests.

    Args:
        path: the file; its folder is created.
        evaluation: the evaluation to report.
        baseline: an evaluation of the same examples, to compare with.
        title: the page's title.
        names: the names of the baseline and the evaluation.
        category: the label to group rows by, if they have it.
        pass_score: the minimum score, 0 to 1, of a passed row.

    Returns:
        The path of the file.

    Raises:
        DataError: there are no rows, they aren't rows of an evaluation, or the baseline has other examples.
    """
    file = Path(path)
    text = html(evaluation, baseline, title=title, names=names, category=category, pass_score=pass_score)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def html(
    evaluation: Evaluation,
    baseline: Evaluation | None,
    *,
    title: str,
    names: tuple[str, str],
    category: str,
    pass_score: float,
) -> str:
    """The text of the page; see :func:`write_report`."""
    for name, side in zip(names, (baseline, evaluation), strict=True):
        if side is not None:
            check_rows(side.rows, name)
    rows = list(iter_rows(evaluation, baseline, category, pass_score))
    comparison, unmeasured = (None, None) if baseline is None else compare_reported(evaluation, baseline, names)
    shown = rows_shown(rows)
    style, script = _asset("report.css"), _asset("report.js")
    computed = figures(evaluation, baseline, category, pass_score)
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return page.from_string(_asset("report.html.jinja")).render(
        title=title,
        names=names,
        figures=computed,
        comparison=comparison,
        unmeasured=unmeasured,
        passes=is_passed(rows),
        latency=charts.latency([row["seconds"] for row in rows if row["seconds"] is not None and not row["error"]]),
        tokens=_tokens(rows),
        differences=charts.differences([row["change"] for row in rows if row["change"] is not None]),
        shown=len(shown),
        categories=list(dict.fromkeys(row["category"] for row in shown if row["category"])),
        data=_json_for_script({"rows": shown, "names": names, "compared": baseline is not None}),
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


def _json_for_script(data: Any) -> Markup:
    """JSON for a script element, escaped so that no text can close the element."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return Markup(text)  # noqa: S704 - HTML characters are escaped


def _asset(name: str) -> str:
    return (files("oneturn.evaluation.report") / "assets" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
