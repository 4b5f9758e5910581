"""``oneturn doctor``."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from oneturn.cli.options import AGENT_FILE, AgentFile, ConfigFile, build_console, load

if TYPE_CHECKING:
    from rich.console import Console

    from oneturn.deployment.doctor import Finding, Report

_MARKS = {"ok": "[green]✓[/]", "warning": "[yellow]![/]", "unknown": "[dim]?[/]", "problem": "[red]✗[/]"}


def doctor(
    ask: Annotated[
        bool, typer.Option("--ask", help="Also send the LM a short question, which may cost money.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    agent: AgentFile = AGENT_FILE,
    config: ConfigFile = None,
) -> None:
    """Check everything that the configuration refers to, and print fixes. Changes nothing.

    Checks packages, the LM, keys, the compiled program; on Databricks credentials, endpoints, indexes, functions,
    permissions, secrets. Exit code 0: no problems; 1: problems.

    Examples:

        oneturn doctor

        oneturn doctor --config configs/prod.yaml

        oneturn doctor --config configs/prod.yaml --ask --json
    """
    loaded = load(agent, config)

    from oneturn.deployment.doctor import check

    if as_json:
        report = check(loaded, ask=ask)
        typer.echo(json.dumps(report.to_dict(), indent=2, ensure_ascii=False))
    else:
        console = build_console()
        with console.status("checking") if console.is_terminal else nullcontext():
            report = check(loaded, ask=ask, seen=lambda finding: _show(finding, console))
        _show_verdict(report, console)
    raise typer.Exit(0 if report.passed() else 1)


def _show(finding: Finding, console: Console) -> None:
    from rich.markup import escape

    text = f"{_MARKS[finding.state.value]} {escape(finding.subject)}: {escape(finding.said)}"
    console.print(text, highlight=False, soft_wrap=True)
    if finding.fix:
        console.print(f"  [dim]{escape(finding.fix)}[/]", highlight=False, soft_wrap=True)


def _show_verdict(report: Report, console: Console) -> None:
    from oneturn.deployment.doctor import State

    counts = ", ".join(f"{report.count(state)} {state.value}" for state in State if report.count(state))
    verdict = "[green]The agent can run.[/]" if report.passed() else "[red]The agent can't run.[/]"
    console.print(f"{verdict} {counts}", highlight=False)
