"""Terminal tables of evaluations and reports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from oneturn.compilation.front import Front
from oneturn.conformance import RULES, EndpointReport
from oneturn.core.findings import Finding, Severity
from oneturn.datasets.check import Balance, DataReport
from oneturn.evaluation.error_limits import first_errors
from oneturn.evaluation.result import Evaluation


def score_table(evaluations: Mapping[str, Evaluation], width: int = 80) -> Table:
    """Return a table with one line per evaluation: score, and mean time and usage per row.

    Args:
        evaluations: the evaluations by name.
        width: the columns of the terminal. In fewer than 80, a line of the table is a figure.
    """
    lines = [(escape(name), *_figures(evaluation)) for name, evaluation in evaluations.items()]
    if width >= _WIDE:
        headers, rows = _HEADERS, lines
    else:
        headers, *rows = zip(_HEADERS, *lines, strict=True)
        rows = [(name.replace("\n", " "), *cells) for name, *cells in rows]
    table = _table(*headers)
    for row in rows:
        table.add_row(*row)
    return table


def _figures(evaluation: Evaluation) -> tuple[str, ...]:
    figures = evaluation.summary()
    latency = [f"{figures[rank]:.3g}" if rank in figures else "–" for rank in ("seconds_p50", "seconds_p90")]
    failed = f"\n{figures['errors']:.0f} failed" if figures["errors"] else ""
    return (
        f"{figures['score']:.1%}",
        _interval(figures["score_low"], figures["score_high"]),
        f"{figures['rows']:.0f}{failed}",
        f"{figures['seconds_per_row']:.2f}\n({', '.join(latency)})",
        f"{figures['lm_calls_per_row']:.2f}" if "lm_calls_per_row" in figures else "",
        " / ".join(f"{figures[name]:.0f}" for name in _TOKENS if name in figures),
    )


_WIDE = 80
_HEADERS = ("", "score", "95% interval", "rows", "seconds\n(p50, p90)", "LM\ncalls", "tokens\nin / out")
_TOKENS = ("prompt_tokens_per_row", "completion_tokens_per_row")


def detail_tables(evaluation: Evaluation, labels: Mapping[str, str | None]) -> Iterator[Table | str]:
    """Yield the details after the score: labels, other metrics, repeats, errors (the first of each kind), cost.

    Args:
        evaluation: the evaluation.
        labels: the labels to group rows by, if the rows have them, with the value of rows without one.
    """
    for label, missing in labels.items():
        if label in evaluation.rows:
            yield label_table(evaluation, label, missing)
    figures = evaluation.summary()
    if measured := [name for name in evaluation.metrics() if name in figures]:
        table = _table("metric", "mean", "95% interval")
        for name in measured:
            table.add_row(name, f"{figures[name]:.1%}", _interval(figures[f"{name}_low"], figures[f"{name}_high"]))
        yield table
    if evaluation.repeats > 1:
        table = _table("pass^k", "share of examples", "95% interval")
        for rate in evaluation.pass_hat_k():
            table.add_row(f"{rate.k} of {rate.k} tries pass", f"{rate.value:.1%}", _interval(rate.low, rate.high))
        yield table
    if errors := evaluation.errors():
        counts = ", ".join(f"{count} × {kind}" for kind, count in errors.items())
        yield escape(f"Errors: {counts}\n{first_errors(evaluation.figures['error'].dropna())}")
    if "cost" in figures:
        yield f"Cost: {figures['cost']:.4f} US dollars"


def label_table(evaluation: Evaluation, label: str, missing: str | None = None) -> Table:
    """Return a table with one line per value of a label: score, interval, rows; ``missing`` as in ``Evaluation.by``."""
    table = _table(label, "score", "95% interval", "rows")
    for value, row in evaluation.by(label, missing).iterrows():
        table.add_row(str(value), f"{row['score']:.1%}", _interval(row["low"], row["high"]), f"{row['rows']:.0f}")
    return table


def front_table(front: Front, compiled: int) -> Iterator[Table | str]:
    """Yield the table of a compile's front, the cheapest first, and a line on the compiled program if it isn't on it.

    Args:
        front: the front.
        compiled: the number of the candidate that is the compiled program.
    """
    points, by_number = front.points, {candidate.number: candidate for candidate in front.measured}
    several = len({candidate.lm for candidate in front.measured}) > 1
    cost = "US dollars\na 1,000 questions" if front.unit == "US dollars" else f"{front.unit}\na question"
    factor = 1000 if front.unit == "US dollars" else 1
    table = _table("front", *(["LM"] if several else []), "score", "95% interval", cost, "loss to the best score")
    for (_, row), point in zip(front.table().iterrows(), points, strict=True):
        name = point.name + (", compiled" if point.number == compiled else "")
        loss = f"{row['to best']:+.1f} ({row['to best, low']:+.1f} to {row['to best, high']:+.1f})"
        table.add_row(
            name,
            *([escape(point.lm)] if several else []),
            f"{point.score:.1%}",
            _interval(row["low"], row["high"]),
            f"{factor * front.cost(point):,.3g}" if front.cost(point) < 10 else f"{factor * front.cost(point):,.0f}",
            "–" if point is points[-1] else loss,
        )
    yield table
    if compiled not in {point.number for point in points}:
        chosen = by_number[compiled]
        yield f"The compiled program is {chosen.name}, with {front.cost(chosen):,.3g} {front.unit} a question."


def _interval(low: float, high: float) -> str:
    return f"{low:.1%} to {high:.1%}"


def _table(*headers: str) -> Table:
    table = Table(*headers, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in table.columns:
        column.overflow = "fold"  # a name is never cut
    for column in table.columns[1:]:
        column.justify = "right"
    return table


_COLOURS = {Severity.error: "red", Severity.warning: "yellow", Severity.note: "dim"}  # in the order of the report
_MAX_FINDINGS = 10  # per check; the JSON has all
_BAR_WIDTH = 6


def show_data_report(report: DataReport, console: Console, strict: bool = False) -> None:
    """Print the number of rows, the label balance, the findings and the verdict."""
    rows = ", ".join(f"{split} {count:,}" for split, count in report.rows.items())
    console.print(f"{escape(str(report.folder))}: {rows} rows", highlight=False)
    for balance in report.balances:
        console.print(_balance_table(balance, list(report.rows)))
    for severity in _COLOURS:
        findings = [finding for finding in report.findings if finding.severity is severity]
        for check, group in groupby(sorted(findings, key=lambda finding: finding.check), lambda finding: finding.check):
            _show_check(check, list(group), console)
    verdict = "[green]passed[/]" if report.passed(strict) else "[red]failed[/]"
    counts = ", ".join(_pluralize(report.count(severity), severity.value) for severity in _COLOURS)
    console.print(f"{verdict}: {counts}", highlight=False)


def _balance_table(balance: Balance, splits: list[str]) -> Table:
    table = Table(balance.field, *splits)
    table.columns[0].overflow = "fold"
    for value in balance.counts:
        cells = []
        for split in splits:
            share, count = balance.share(value, split), balance.counts[value].get(split, 0)
            cells.append(f"{'█' * round(share * _BAR_WIDTH):<{_BAR_WIDTH}} {share:4.0%} ({count})")
        table.add_row(escape(value), *cells)
    return table


def _show_check(check: str, findings: list[Finding], console: Console) -> None:
    severity = findings[0].severity
    console.print(f"[{_COLOURS[severity]}]{severity.value} {check}[/]: {len(findings)}", highlight=False)
    for finding in findings[:_MAX_FINDINGS]:
        console.print(f"  {escape(_format_finding(finding))}", highlight=False, soft_wrap=True)
        console.print(f"    [dim]{escape(finding.fix)}[/]", highlight=False, soft_wrap=True)
    if len(findings) > _MAX_FINDINGS:
        console.print(f"  and {len(findings) - _MAX_FINDINGS} more (all of them: --json FILE)", highlight=False)


def _format_finding(finding: Finding) -> str:
    where = ", ".join(filter(None, (finding.file, finding.place)))
    field = f"{finding.field} = {_shorten(finding.value)}: " if finding.field and finding.value is not None else ""
    return f"{where}: {field}{finding.message}" if where else finding.message


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _pluralize(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


_CONTRACTS = {"openresponses": "Open Responses", "mlflow": "MLflow's ResponsesAgent"}
_SKIPPED = "suite-refused"


def show_conformance_report(report: EndpointReport, console: Console, strict: bool = False) -> None:
    """Print the probes, the violations by rule, and the verdict; ``strict`` makes warnings fail."""
    contract = _CONTRACTS[report.contract]
    console.print(f"{escape(report.url)}: {contract}", highlight=False, soft_wrap=True)
    console.print(_probe_table(report, console.width))
    for severity in _COLOURS:
        for rule, violations in _by_rule(report, severity).items():
            _show_rule(rule, severity, violations, console)
    errors, warnings = (len(report.broken_rules(severity)) for severity in (Severity.error, Severity.warning))
    verdict = f"[green]passed {contract}[/]" if report.passed(strict) else f"[red]did not pass {contract}[/]"
    refused = len({probe.name for probe in report.probes if any(f.check == _SKIPPED for f in probe.findings)})
    counts = [_pluralize(errors, "error"), _pluralize(warnings, "warning")]
    if refused:
        counts.append(f"{_pluralize(refused, 'test')} of the acceptance suite refused")
    console.print(f"{verdict}: {', '.join(counts)}", highlight=False, soft_wrap=True)


def _probe_table(report: EndpointReport, width: int) -> Table:
    headers = ("probe", "requests", "errors", "warnings", "counts")
    table = _table(*headers[: 5 if width >= _WIDE else 4])
    table.columns[-1].justify = "left" if width >= _WIDE else "right"
    for probe in report.probes:
        facts = ", ".join(f"{name} {value}" for name, value in probe.facts.items())
        counts = [str(probe.count(severity)) for severity in (Severity.error, Severity.warning)]
        cells = (probe.name, str(probe.requests), *counts, escape(facts))
        table.add_row(*cells[: len(table.columns)])
    return table


_MAX_MESSAGES = 3  # per rule; the JSON has all


def _show_rule(rule: str, severity: Severity, violations: list[tuple[str, Finding]], console: Console) -> None:
    console.print(f"[{_COLOURS[severity]}]{severity.value} {rule}[/]: {escape(RULES[rule].asks)}", highlight=False)
    probes: dict[str, list[str]] = {}  # by message
    for probe, violation in violations:
        position = "" if violation.event is None else f", event {violation.event}"
        probes.setdefault(violation.message, []).append(f"{probe}{position}")
    most = len(probes) if rule == _SKIPPED else _MAX_MESSAGES if severity is Severity.error else 1
    for message, (first, *others) in list(probes.items())[:most]:
        more = f" (and {len(others)} more)" if others else ""
        console.print(f"  {escape(first)}: {escape(message)}{more}", highlight=False)
    if severity is Severity.error and len(probes) > most:
        console.print(f"  and {len(probes) - most} more (all of them: --json FILE)", highlight=False)
    console.print(f"  [dim]{escape(RULES[rule].why)}[/]", highlight=False)


def _by_rule(report: EndpointReport, severity: Severity) -> dict[str, list[tuple[str, Finding]]]:
    grouped: dict[str, list[tuple[str, Finding]]] = {}
    for probe in report.probes:
        for violation in probe.findings:
            if violation.severity is severity:
                grouped.setdefault(violation.check, []).append((probe.name, violation))
    return grouped
