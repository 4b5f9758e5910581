"""``oneturn doctor``."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oneturn.cli.options import AGENT_FILE, AgentFile, ConfigFile, build_console, load

if TYPE_CHECKING:
    from rich.console import Console

    from oneturn.deployment.doctor import Finding, Report

_STATES = {"ok": "ok", "warning": "warning", "unknown": "unknown", "error": "problem"}
"""The words for severities here."""
_MARKS = {"ok": "[green]✓[/]", "warning": "[yellow]![/]", "unknown": "[dim]?[/]", "error": "[red]✗[/]"}


def doctor(
    ask: Annotated[
        bool, typer.Option("--ask", help="Also send the LM a short question, which may cost money.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    agent: AgentFile = AGENT_FILE,
    config: ConfigFile = None,
) -> None:
    """Check everything that the configuration refers to, and print fixes. Changes nothing.

    Checks packages, the LM, keys, the compiled program, the recipe; on Databricks credentials, endpoints, indexes,
    functions, permissions, secrets. Exit code 0: no problems; 1: problems.

    Examples:

        oneturn doctor

        oneturn doctor --config configs/prod.yaml

        oneturn doctor --config configs/prod.yaml --ask --json
    """
    loaded = load(agent, config)

    from oneturn.compilation.recipes import recipes_of
    from oneturn.deployment.doctor import check

    recipes = recipes_of(loaded)
    if as_json:
        report = check(loaded, ask=ask, recipes=recipes)
        typer.echo(json.dumps(_to_dict(report), indent=2, ensure_ascii=False))
    else:
        console = build_console()
        with console.status("checking") if console.is_terminal else nullcontext():
            report = check(loaded, ask=ask, recipes=recipes, seen=lambda finding: _show(finding, console))
        _show_verdict(report, console)
    raise typer.Exit(0 if report.passed() else 1)


def _show(finding: Finding, console: Console) -> None:
    from rich.markup import escape

    text = f"{_MARKS[finding.severity.value]} {escape(finding.check)}: {escape(finding.message)}"
    console.print(text, highlight=False, soft_wrap=True)
    if finding.fix:
        console.print(f"  [dim]{escape(finding.fix)}[/]", highlight=False, soft_wrap=True)


def _show_verdict(report: Report, console: Console) -> None:
    numbers = Counter(finding.severity.value for finding in report.findings)
    counts = ", ".join(f"{numbers[severity]} {state}" for severity, state in _STATES.items() if numbers[severity])
    verdict = "[green]The agent can run.[/]" if report.passed() else "[red]The agent can't run.[/]"
    console.print(f"{verdict} {counts}", highlight=False)


def _to_dict(report: Report) -> dict[str, Any]:
    findings = [
        {"subject": each.check, "state": _STATES[each.severity.value], "said": each.message, "fix": each.fix}
        for each in report.findings
    ]
    return {"passed": report.passed(), "findings": findings}
