"""The result of the gate, in Markdown and as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group
from rich.markup import escape
from rich.table import Table

from oneturn.compiling.gate import CategoryChange, Flip, GateResult

SHOWN = 20
"""So many examples of each kind are listed."""

_SCORES = ("", "rows", "before", "after", "difference")
_FLIPS = ("example", "category", "before", "after")


def markdown(result: GateResult) -> str:
    """The report as Markdown."""
    parts = [f"# {_cell(result.challenger)} against {_cell(result.champion)}", _cell(result.verdict)]
    if result.reasons:
        parts.append("\n".join(f"- {_cell(reason)}" for reason in result.reasons))
    parts.append(_table(_SCORES, _scores(result)))
    for title, flips in _kinds(result):
        parts += [f"## {title}", _table(_FLIPS, _rows(flips))]
        if len(flips) > SHOWN:
            parts.append(f"and {len(flips) - SHOWN} more.")
    return "\n\n".join([*parts, *_notes(result)]) + "\n"


def tables(result: GateResult) -> Group:
    """The report for a terminal."""
    found: list[Table | str] = [f"[{'green' if result.passed else 'red'}]{escape(result.verdict)}[/]"]
    found += [f"  - {escape(reason)}" for reason in result.reasons]
    found.append(_rich(_SCORES, _scores(result)))
    for title, flips in _kinds(result):
        more = f" ({len(flips) - SHOWN} more aren't shown)" if len(flips) > SHOWN else ""
        found += [title + more, _rich(_FLIPS, _rows(flips))]
    return Group(*found, *_notes(result))


def _kinds(result: GateResult) -> Iterator[tuple[str, Sequence[Flip]]]:
    kinds = (("worse", result.worse), ("better", result.better))
    return ((f"{len(flips)} examples are {word}", flips) for word, flips in kinds if flips)


def _scores(result: GateResult) -> Iterator[list[str]]:
    interval = f"{result.difference:+.1%} ({result.low:+.1%} to {result.high:+.1%})"
    yield ["all", str(result.rows), f"{result.champion_score:.1%}", f"{result.challenger_score:.1%}", interval]
    for found in result.categories:
        yield [
            _name(found),
            str(found.rows),
            f"{found.champion:.1%}",
            f"{found.challenger:.1%}",
            f"{found.difference:+.1%}",
        ]


def _name(found: CategoryChange) -> str:
    return found.category if found.judged else f"{found.category} (too few to judge)"


def _rows(flips: Sequence[Flip]) -> Iterator[list[str]]:
    for flip in flips[:SHOWN]:
        yield [_short(flip.example), flip.category or "", f"{flip.champion:.2f}", f"{flip.challenger:.2f}"]


def _notes(result: GateResult) -> Iterator[str]:
    for name, errors in zip((result.champion, result.challenger), result.errors, strict=True):
        if errors:
            yield f"{errors} of {result.rows} examples failed for {name}; each counts as 0."


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 90 else line[:89] + "…"


def _table(headers: Sequence[str], rows: Iterator[list[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _rich(headers: Sequence[str], rows: Iterator[list[str]]) -> Table:
    table = Table(*headers)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*map(escape, row))
    return table
