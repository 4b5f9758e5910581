"""Write a measurement as Markdown tables: scores with intervals, and paired differences."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from oneturn.evaluation import interval, interval_of_differences


def write_report(
    results: Mapping[str, pd.DataFrame], about: Mapping[str, str], path: Path | None, by: str | None = None
) -> None:
    """Print the report, and write it to ``path`` unless that is ``None``.

    Args:
        results: the rows by program.
        about: what was measured, by name.
        path: the Markdown file, whose text between the markers ``measured`` is replaced.
        by: a label; each of its values has its own tables.
    """
    parts = [_about(about)]
    if by is None:
        parts += _tables(results)
    else:
        for value in dict.fromkeys(value for rows in results.values() for value in rows.get(by, ())):
            parts += [f"**{value}**", *_tables({name: rows[rows[by] == value] for name, rows in results.items()})]
    text = "\n\n".join(parts) + "\n"
    print(text)
    if path is not None:
        path.write_text(between_marks(path, text), encoding="utf-8")


def _tables(results: Mapping[str, pd.DataFrame]) -> list[str]:
    measured = {name: rows for name, rows in results.items() if len(rows)}
    return [_table(measured), _categories(measured), *_pairs(measured)]


def _about(about: Mapping[str, str]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in about.items())


def _table(results: Mapping[str, pd.DataFrame]) -> str:
    lines = [
        "| program | rows | score | 95% interval | fully right | LM calls | tokens | written | s a question | failed |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, rows in results.items():
        low, high = interval(rows["score"])
        right = (rows["score"] >= 0.999).mean()
        tokens = (rows["prompt_tokens"] + rows["completion_tokens"]).mean()
        lines.append(
            f"| {name} | {len(rows)} | {rows['score'].mean():.1%} | {low:.1%} to {high:.1%} | {right:.1%} "
            f"| {rows['lm_calls'].mean():.2f} | {tokens:,.0f} | {rows['completion_tokens'].mean():.0f} "
            f"| {rows['seconds'].mean():.1f} | {rows['error'].notna().sum()} |"
        )
    return "\n".join(lines)


def _categories(results: Mapping[str, pd.DataFrame]) -> str:
    table = pd.DataFrame({name: rows.groupby("category")["score"].mean() for name, rows in results.items()})
    header = "| category | " + " | ".join(table.columns) + " |"
    rule = "| --- " * (len(table.columns) + 1) + "|"
    rows = [
        f"| {category} | " + " | ".join("–" if pd.isna(v) else f"{v:.0%}" for v in values) + " |"
        for category, values in zip(table.index, table.to_numpy(), strict=True)
    ]
    return "\n".join([header, rule, *rows])


def _pairs(results: Mapping[str, pd.DataFrame]) -> list[str]:
    names = list(results)
    lines = [_difference(results, a, b) for b in names for a in names if _is_comparable(a, b)]
    return ["Paired differences, on the rows that both answered:", "\n".join(lines)] if lines else []


def _is_comparable(a: str, b: str) -> bool:
    if "oneturn" not in a or a == b:
        return False
    if "oneturn" in b:
        return "uncompiled" in b
    return a.split(", ")[1] == b.split(", ")[1]


def _difference(results: Mapping[str, pd.DataFrame], a: str, b: str) -> str:
    pair = results[a].merge(results[b], on="id", suffixes=("_a", "_b"))
    points = pair["score_a"] - pair["score_b"]
    low, high = interval_of_differences(points)
    calls = pair["lm_calls_a"].mean() / max(pair["lm_calls_b"].mean(), 1e-9)
    return (
        f"- {a} − {b}: {100 * points.mean():+.1f} points ({100 * low:+.1f} to {100 * high:+.1f}, {len(pair)} rows); "
        f"LM calls × {calls:.2f}"
    )


def between_marks(path: Path, text: str, name: str = "measured") -> str:
    """Return the file's text with ``text`` between the markers ``name``; a missing file contains only the markers."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    old = path.read_text(encoding="utf-8") if path.exists() else f"{start}\n{end}\n"
    head, _, rest = old.partition(start)
    _, _, tail = rest.partition(end)
    return f"{head}{start}\n{text}{end}{tail}"
