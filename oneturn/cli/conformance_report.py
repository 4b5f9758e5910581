"""A graded endpoint, for a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from oneturn.conformance import RULES, Report, Severity, Violation

_COLOURS = {Severity.error: "red", Severity.warning: "yellow", Severity.note: "dim"}

_CONTRACTS = {"OpenAI": "OpenAI's contract", "MLflow": "MLflow's weaker contract", "": "no stream came"}


def show(report: Report, console: Console) -> None:
    """What was tried, what was found by rule, and the verdict."""
    console.print(f"{escape(report.url)}: {_CONTRACTS[report.contract]}", highlight=False)
    console.print(_tried(report))
    for severity in Severity:
        for rule, found in _by_rule(report, severity).items():
            _show_rule(rule, severity, found, console)
    errors, warnings = (len(report.broken_rules(severity)) for severity in (Severity.error, Severity.warning))
    verdict = "[green]passed[/]" if not errors else "[red]failed[/]"
    console.print(f"{verdict}: {_counted(errors, 'error')}, {_counted(warnings, 'warning')}", highlight=False)


def _tried(report: Report) -> Table:
    table = Table("tried", "requests", "errors", "warnings", "counted")
    for probe in report.probes:
        counted = ", ".join(f"{name} {value}" for name, value in probe.facts.items())
        counts = [str(probe.count(severity)) for severity in (Severity.error, Severity.warning)]
        table.add_row(probe.name, str(probe.requests), *counts, escape(counted))
    return table


def _show_rule(rule: str, severity: Severity, found: list[tuple[str, Violation]], console: Console) -> None:
    console.print(f"[{_COLOURS[severity]}]{severity.value} {rule}[/]: {escape(RULES[rule].asks)}", highlight=False)
    by_probe: dict[str, list[Violation]] = {}
    for probe, violation in found:
        by_probe.setdefault(probe, []).append(violation)
    for probe, (first, *others) in by_probe.items():
        place = "" if first.event is None else f", event {first.event}"
        more = f" (and {len(others)} more)" if others else ""
        console.print(f"  {escape(probe)}{place}: {escape(first.message)}{more}", highlight=False)
        if severity is not Severity.error:  # one example will do
            break
    console.print(f"  [dim]{escape(RULES[rule].why)}[/]", highlight=False)


def _by_rule(report: Report, severity: Severity) -> dict[str, list[tuple[str, Violation]]]:
    grouped: dict[str, list[tuple[str, Violation]]] = {}
    for probe in report.probes:
        for violation in probe.violations:
            if violation.severity is severity:
                grouped.setdefault(violation.rule, []).append((probe.name, violation))
    return grouped


def _counted(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
