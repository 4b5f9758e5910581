"""Evaluations as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.box import SIMPLE_HEAD
from rich.table import Table

from oneturn.evaluation import Evaluation


def comparison(evaluations: Mapping[str, Evaluation]) -> Table:
    """One line an evaluation: its score, and what a row took, on average. It fits into 80 columns."""
    table = _table("", "score", "95% interval", "rows", "seconds\n(p50, p90)", "LM\ncalls", "tokens\nin / out")
    for name, evaluation in evaluations.items():
        figures = evaluation.summary()
        latency = [f"{figures[rank]:.3g}" if rank in figures else "–" for rank in ("seconds_p50", "seconds_p90")]
        failed = f"\n{figures['errors']:.0f} failed" if figures["errors"] else ""
        table.add_row(
            name,
            f"{figures['score']:.1%}",
            _span(figures["score_low"], figures["score_high"]),
            f"{figures['rows']:.0f}{failed}",
            f"{figures['seconds_per_row']:.2f}\n({', '.join(latency)})",
            f"{figures['lm_calls_per_row']:.2f}",
            f"{figures['prompt_tokens_per_row']:.0f} / {figures['completion_tokens_per_row']:.0f}",
        )
    return table


def beside(evaluation: Evaluation) -> Iterator[Table | str]:
    """What there is to tell beside the score: by category, other metrics, repeats, errors, dollars."""
    if "category" in evaluation.rows:
        yield by_category(evaluation)
    figures = evaluation.summary()
    if measured := [name for name in evaluation.metrics() if name in figures]:
        table = _table("metric", "mean", "95% interval")
        for name in measured:
            table.add_row(name, f"{figures[name]:.1%}", _span(figures[f"{name}_low"], figures[f"{name}_high"]))
        yield table
    if evaluation.repeats > 1:
        table = _table("pass^k", "share of examples", "95% interval")
        for found in evaluation.pass_hat_k():
            table.add_row(f"{found.k} of {found.k} tries pass", f"{found.value:.1%}", _span(found.low, found.high))
        yield table
    if errors := evaluation.errors():
        yield "Errors: " + ", ".join(f"{count} × {kind}" for kind, count in errors.items())
    if "cost" in figures:
        yield f"Cost: {figures['cost']:.4f} US dollars"


def by_category(evaluation: Evaluation) -> Table:
    """One line a category: score, interval, rows."""
    table = _table("category", "score", "95% interval", "rows")
    for category, row in evaluation.by("category").iterrows():
        table.add_row(str(category), f"{row['score']:.1%}", _span(row["low"], row["high"]), f"{row['rows']:.0f}")
    return table


def _span(low: float, high: float) -> str:
    return f"{low:.1%} to {high:.1%}"


def _table(*headers: str) -> Table:
    table = Table(*headers, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in table.columns[1:]:
        column.justify = "right"
    return table
