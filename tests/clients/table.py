"""The tables of ``docs/clients.md``, made from a run of the matrix."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path

from tests.clients.clients import CLIENTS, MODES
from tests.clients.scenarios import SCENARIOS

DOCS = Path(__file__).resolve().parents[2] / "docs" / "clients.md"
_BEGIN, _END = "<!-- tables: make test-clients WRITE=1 -->", "<!-- end of tables -->"
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def update_table(
    versions: Mapping[str, str], seen: Mapping[tuple[str, str, str], str | None], *, write: bool
) -> list[str]:
    """Write the tables into the docs, or compare them.

    Args:
        versions: the clients' versions, by name.
        seen: what a client does otherwise, by client, scenario and mode; ``None`` for nothing.
        write: whether to write.

    Returns:
        What is out of date; nothing after writing.
    """
    text = DOCS.read_text(encoding="utf-8")
    before, rest = text.split(_BEGIN)
    tables, after = rest.split(_END)
    current = f"\n{_tables(versions, seen)}\n"
    if write:
        DOCS.write_text(f"{before}{_BEGIN}{current}{_END}{after}", encoding="utf-8")
        return []
    difference = list(
        difflib.unified_diff(tables.splitlines(), current.splitlines(), "docs/clients.md", "seen", "", "", 0)
    )
    return ["docs/clients.md is out of date; run: make test-clients WRITE=1", *difference] if difference else []


def _tables(versions: Mapping[str, str], seen: Mapping[tuple[str, str, str], str | None]) -> str:
    notes: list[str] = []
    titles = [scenario.title for scenario in SCENARIOS.values()]
    rows = [["client", *titles], ["---"] * (1 + len(titles))]
    for name, client in CLIENTS.items():
        shown = [_cell([seen[name, scenario, mode] for mode in MODES], notes) for scenario in SCENARIOS]
        rows.append([f"{client.title} {versions[name]}", *shown])
    setups = [["client", "set"], ["---", "---"]]
    by_setup: dict[str, list[str]] = {}
    for client in CLIENTS.values():
        by_setup.setdefault(client.setup, []).append(client.title)
    setups += [[", ".join(dict.fromkeys(names)), setup] for setup, names in by_setup.items()]
    lines = [f"{number}. {note}" for number, note in enumerate(notes, 1)]
    return "\n".join([*_markdown(rows), "", *lines, "", *_markdown(setups)])


def _cell(differences: list[str | None], notes: list[str]) -> str:
    """What a cell shows: a tick if all modes are as the protocol has it, a note otherwise."""
    reasons = list(dict.fromkeys(reason for reason in differences if reason is not None))
    for reason in reasons:
        if reason not in notes:
            notes.append(reason)
    marks = " ".join(str(notes.index(reason) + 1) for reason in reasons).translate(_SUPERSCRIPTS)
    return f"{'–' if None not in differences else '✓'}{marks}"


def _markdown(rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in rows]
