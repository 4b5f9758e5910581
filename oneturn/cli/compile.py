"""``oneturn compile``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from oneturn.cli.options import AGENT_FILE, AgentFile, ConfigFile, load

if TYPE_CHECKING:
    from rich.console import Console

    from oneturn.compilation.recipes import Estimate


def _show(estimate: Estimate | None, recipe: str, console: Console) -> None:
    if estimate is None:
        console.out(f"The recipe {recipe!r} doesn't say what it does: declare it with @oneturn.recipe. A limit holds.")
    else:
        failed = f", {estimate.failed_rows} of which had no answer" if estimate.failed_rows else ""
        console.out(f"{estimate} (measured on {estimate.measured_rows} questions{failed})")


def compile(
    recipe: Annotated[
        str | None, typer.Option(metavar="NAME", help="The recipe; the configured one otherwise.")
    ] = None,
    recipes: Annotated[
        bool, typer.Option("--recipes", help="Say which recipes there are and when to take which, and stop.")
    ] = False,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Say what it would cost, from a few questions, and stop.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over, instead of going on where it was.")] = False,
    max_lm_calls: Annotated[int | None, typer.Option(min=1, help="End after so many LM calls.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="End after so many tokens.")] = None,
    max_minutes: Annotated[float | None, typer.Option(min=0.001, help="End after so many minutes.")] = None,
    max_cost: Annotated[float | None, typer.Option(min=0.001, help="End after so many US dollars.")] = None,
    agent: AgentFile = AGENT_FILE,
    config: ConfigFile = None,
) -> None:
    """Compile the agent's prompts, and measure what that brought on the development split.

    A run that was interrupted, or killed, goes on where it was when the same command is given again: no LM call is paid
    for twice. At a limit it ends with the best program so far.

    Examples:

        oneturn compile

        oneturn compile --recipes

        oneturn compile --recipe bootstrap --estimate

        oneturn compile --max-lm-calls 500 --max-cost 2
    """
    loaded = load(agent, config)
    if recipes:
        from oneturn.compilation.recipes import described

        typer.echo(described(dict(loaded.recipes)))
        return
    asked = {"lm_calls": max_lm_calls, "tokens": max_tokens, "minutes": max_minutes, "cost": max_cost}
    given = {name: limit for name, limit in asked.items() if limit is not None}
    budget = loaded.config.compile.budget.model_copy(update=given)

    from rich.console import Console

    from oneturn.cli.tables import comparison
    from oneturn.compilation import compile, estimate_compile
    from oneturn.compilation.mlflow import MlflowRuns
    from oneturn.compilation.progress import SpendBar

    console = Console()
    if estimate:
        expected = estimate_compile(loaded, recipe=recipe, budget=budget)
        _show(expected, recipe or loaded.config.compile.recipe, console)
        return
    listeners = [SpendBar(budget), MlflowRuns()]
    try:
        done = compile(loaded, recipe=recipe, budget=budget, fresh=fresh, listeners=listeners)
    except KeyboardInterrupt:
        again = "The same command without --fresh" if fresh else "The same command"
        typer.echo(f"Stopped. {again} goes on from here.", err=True)
        raise typer.Exit(130) from None
    console.print(comparison({"uncompiled": done.before, "compiled": done.after}))
    spend = done.manifest.spend
    console.out(f"Spent {spend['lm_calls']:.0f} LM calls in {spend['seconds']:.0f} s on {done.manifest.lm}.")
    if done.stopped is not None:
        console.out(f"Ended at {done.stopped}, with the best program so far. Raise the limit to go on from here.")
    console.out(f"The compiled program: {done.path}")


def diff(
    before: Annotated[
        str,
        typer.Argument(metavar="[BEFORE]", help="A file, models:/NAME/VERSION, or a git revision; HEAD if not said."),
    ] = "HEAD",
    after: Annotated[
        str | None, typer.Argument(metavar="[AFTER]", help="The same; the configured file if not said.")
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="PATH", help="Write it as a page, too.")] = None,
    agent: AgentFile = AGENT_FILE,
    config: ConfigFile = None,
) -> None:
    """Show what changed between two compiled programs: instructions word by word, demos as runs, figures, origin.

    The exit code is 0, whether something changed or not; 1 if one of them can't be read.

    Examples:

        oneturn diff

        oneturn diff main

        oneturn diff models:/support_desk@champion

        oneturn diff old.json new.json --html review.html
    """
    loaded = load(agent, config)

    import io
    import tempfile

    from rich.console import Console

    from oneturn.compilation.artifact_sources import compiled_file
    from oneturn.compilation.diff import diff
    from oneturn.compilation.diff_report import report
    from oneturn.config.tracking import use_tracking

    if any(side.startswith(("models:/", "runs:/")) for side in (before, after or "")):
        use_tracking(loaded.config.mlflow)
    configured = loaded.compiled_path if loaded.config.compiled is not None else None
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        files = (
            compiled_file(before, configured, Path(one)),
            compiled_file(after, configured, Path(other)) if after is not None else loaded.compiled_path,
        )
        found = diff(*files, names=(before, after or str(loaded.config.compiled)))
    console = Console()
    for part in report(found, marks=not console.is_terminal or console.no_color):
        console.print(part, soft_wrap=not console.is_terminal)
    if html is not None:
        page = Console(record=True, width=120, file=io.StringIO(), force_terminal=True, color_system="truecolor")
        for part in report(found, marks=False):
            page.print(part)
        html.parent.mkdir(parents=True, exist_ok=True)
        html.write_text(page.export_html(), encoding="utf-8")
        console.out(f"The page: {html}")
