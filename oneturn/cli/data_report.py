"""Checked examples, for a terminal."""

from __future__ import annotations

from itertools import groupby

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from oneturn.examples.balance import Balance
from oneturn.examples.check import DataReport
from oneturn.examples.findings import Finding, Severity

_COLOURS = {Severity.error: "red", Severity.warning: "yellow", Severity.note: "dim"}
_SHOWN = 10  # of each kind; all of them stand in the JSON
_BAR = 6


def show(report: DataReport, console: Console, strict: bool = False) -> None:
    """How many rows there are and of what kind, what was found, and the verdict."""
    rows = ", ".join(f"{split} {count:,}" for split, count in report.rows.items())
    console.print(f"{escape(str(report.folder))}: {rows} rows", highlight=False)
    for balance in report.balances:
        console.print(_balance(balance, list(report.rows)))
    for severity in Severity:
        found = [finding for finding in report.findings if finding.severity is severity]
        for check, group in groupby(sorted(found, key=lambda finding: finding.check), lambda finding: finding.check):
            _show_check(check, list(group), console)
    verdict = "[green]passed[/]" if report.passed(strict) else "[red]failed[/]"
    counts = ", ".join(_counted(report.count(severity), severity.value) for severity in Severity)
    console.print(f"{verdict}: {counts}", highlight=False)


def _balance(balance: Balance, splits: list[str]) -> Table:
    table = Table(balance.field, *splits)
    for value in balance.counts:
        cells = []
        for split in splits:
            share, count = balance.share(value, split), balance.counts[value].get(split, 0)
            cells.append(f"{'█' * round(share * _BAR):<{_BAR}} {share:4.0%} ({count})")
        table.add_row(escape(value), *cells)
    return table


def _show_check(check: str, found: list[Finding], console: Console) -> None:
    severity = found[0].severity
    console.print(f"[{_COLOURS[severity]}]{severity.value} {check}[/]: {len(found)}", highlight=False)
    for finding in found[:_SHOWN]:
        console.print(f"  {escape(_told(finding))}", highlight=False, soft_wrap=True)
        console.print(f"    [dim]{escape(finding.fix)}[/]", highlight=False, soft_wrap=True)
    if len(found) > _SHOWN:
        console.print(f"  and {len(found) - _SHOWN} more (all of them: --json FILE)", highlight=False)


def _told(finding: Finding) -> str:
    where = ", ".join(filter(None, (finding.file, finding.place)))
    what = f"{finding.field} = {_short(finding.value)}: " if finding.field and finding.value is not None else ""
    return f"{where}: {what}{finding.message}" if where else finding.message


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _counted(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
