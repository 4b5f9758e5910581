"""``oneturn compile``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from oneturn.cli.options import (
    AGENT_FILE,
    AgentFile,
    ApprovalOption,
    ConfigFile,
    build_console,
    build_policy,
    load,
)

if TYPE_CHECKING:
    from rich.console import Console

    from oneturn.compilation.front import Preference
    from oneturn.compilation.recipes.work import Estimate

_UNCOMPILED = "uncompiled"


def _show_estimate(estimate: Estimate | None, recipe: str, console: Console) -> None:
    if estimate is None:
        console.out(f"The recipe {recipe!r} has no estimate; declare one with @oneturn.recipe. Limits still apply.")
    else:
        failed = f", {estimate.failed_rows} of which had no answer" if estimate.failed_rows else ""
        console.out(f"{estimate} (measured on {estimate.measured_rows} questions{failed})")


def _parse_preference(text: str | None) -> Preference | int | None:
    if text is None or text in ("quality", "balanced", "cost"):
        return text  # type: ignore[return-value]  # mypy doesn't narrow to literals
    if text.isdecimal():
        return int(text)
    raise typer.BadParameter(
        f"{text!r} is neither quality, balanced or cost nor the number of a candidate.", param_hint="--prefer"
    )


def compile(
    recipe: Annotated[
        str | None, typer.Option(metavar="NAME", help="The recipe; by default the configured one.")
    ] = None,
    recipes: Annotated[
        bool, typer.Option("--recipes", help="List the recipes and when to use them, and exit.")
    ] = False,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Estimate the cost from a few questions, and exit.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over instead of resuming.")] = False,
    max_lm_calls: Annotated[int | None, typer.Option(min=1, help="Stop after N LM calls.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Stop after N tokens.")] = None,
    max_minutes: Annotated[float | None, typer.Option(min=0.001, help="Stop after N minutes.")] = None,
    max_cost: Annotated[float | None, typer.Option(min=0.001, help="Stop after N US dollars.")] = None,
    prefer: Annotated[
        str | None,
        typer.Option(
            metavar="quality|balanced|cost|N",
            help="Which point of the front becomes the compiled program: the highest score, a balance, the cheapest "
            "without a significant loss, or candidate N; by default the configured one.",
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Plot the front to a file, such as front.svg or front.png.")
    ] = None,
    allow_overlap: Annotated[
        str | None,
        typer.Option(
            metavar="REASON",
            help="Save the program although its prompts repeat rows of dev or test; the reason is recorded.",
        ),
    ] = None,
    approve: ApprovalOption = None,
    agent: AgentFile = AGENT_FILE,
    config: ConfigFile = None,
) -> None:
    """Compile the agent's prompts, and measure the effect on the development split.

    The same command resumes an interrupted or killed run, without repeating LM calls. At a limit the run stops and
    keeps the best program so far. The front is the list of candidates that no other beats in both score and cost;
    run the command again with another --prefer to take another one, without LM calls.

    Examples:

        oneturn compile

        oneturn compile --prefer cost --plot front.svg

        oneturn compile --prefer 3

        oneturn compile --recipes

        oneturn compile --recipe bootstrap --estimate

        oneturn compile --max-lm-calls 500 --max-cost 2
    """
    loaded, preference = load(agent, config), _parse_preference(prefer)
    if recipes:
        from oneturn.compilation.recipes import recipes_of
        from oneturn.compilation.recipes.calling import format_recipes

        typer.echo(format_recipes(recipes_of(loaded)))
        return
    limits = {"lm_calls": max_lm_calls, "tokens": max_tokens, "minutes": max_minutes, "cost": max_cost}
    overrides = {name: limit for name, limit in limits.items() if limit is not None}
    budget = loaded.config.compile.budget.model_copy(update=overrides)

    from oneturn.cli.tables import front_table, score_table
    from oneturn.compilation import compile, estimate_compile
    from oneturn.compilation.mlflow import MlflowRuns
    from oneturn.compilation.progress import SpendBar
    from oneturn.evaluation.plots import check_figure_file

    console, policy = build_console(), build_policy(approve)
    if estimate:
        cost = estimate_compile(loaded, recipe=recipe, budget=budget, approve=policy)
        _show_estimate(cost, recipe or loaded.config.compile.recipe, console)
        return
    if plot is not None:
        check_figure_file(plot)  # before the compile is paid for
    callbacks = [SpendBar(budget), MlflowRuns()]
    try:
        result = compile(
            loaded,
            recipe=recipe,
            budget=budget,
            fresh=fresh,
            callbacks=callbacks,
            approve=policy,
            prefer=preference,
            allow_overlap=allow_overlap,
        )
    except KeyboardInterrupt:
        command = "The same command without --fresh" if fresh else "The same command"
        typer.echo(f"Stopped. {command} resumes here.", err=True)
        raise typer.Exit(130) from None
    console.print(score_table({"uncompiled": result.before, "compiled": result.after}, console.width))
    for part in front_table(result.front, result.kept):
        console.print(part)
    if plot is not None:
        result.plot_front().savefig(plot)
        console.out(f"Plot of the front: {plot}")
    spend = result.manifest.spend
    console.out(f"Spent {spend['lm_calls']:.0f} LM calls in {spend['seconds']:.0f} s on {result.manifest.lm}.")
    if result.stopped is not None:
        console.out(f"Stopped at {result.stopped}, with the best program so far. Raise the limit to resume.")
    console.out(f"Compiled program: {result.path}")
    if result.manifest.lm != result.candidates[0].lm:
        console.out(f"It was compiled for {result.manifest.lm}. To use that LM, set lm.model in the configuration.")
    if loaded.config.compiled is None:
        path, root = result.path.resolve(), loaded.root.resolve()
        place = path.relative_to(root) if path.is_relative_to(root) else path
        console.out(f"To use it, set in the configuration:  compiled: {place}")


def diff(
    before: Annotated[
        str | None,
        typer.Argument(
            metavar="[BEFORE]",
            help="A file, models:/NAME/VERSION, a git revision, or `uncompiled`; by default HEAD, or the uncompiled "
            "program if HEAD has no compiled one.",
        ),
    ] = None,
    after: Annotated[
        str | None, typer.Argument(metavar="[AFTER]", help="The same; by default the configured file.")
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="PATH", help="Also write an HTML page.")] = None,
    agent: AgentFile = AGENT_FILE,
    config: ConfigFile = None,
) -> None:
    """Show the differences between two compiled programs: instructions, demos, metrics and origin.

    The exit code is 0 with or without differences, and 1 if a program can't be read.

    Examples:

        oneturn diff

        oneturn diff main

        oneturn diff uncompiled

        oneturn diff models:/my_agent@champion

        oneturn diff old.json new.json --html review.html
    """
    loaded = load(agent, config)

    import io
    import tempfile

    from rich.console import Console

    from oneturn.compilation.diff import diff
    from oneturn.compilation.diff_report import report
    from oneturn.config.tracking import use_tracking
    from oneturn.core.terminal import visible_lines
    from oneturn.errors import ProgramError
    from oneturn.programs import as_program
    from oneturn.programs.state.artifact_sources import compiled_file, uncompiled_file

    if any(side is not None and side.startswith(("models:/", "runs:/")) for side in (before, after)):
        use_tracking(loaded.config.mlflow, loaded.root)
    configured = loaded.compiled_path
    with tempfile.TemporaryDirectory() as before_folder, tempfile.TemporaryDirectory() as after_folder:
        new = compiled_file(after, configured, Path(after_folder)) if after is not None else configured
        try:
            name = before or "HEAD"
            old = compiled_file(name, configured, Path(before_folder)) if before != _UNCOMPILED else None
        except ProgramError as error:
            if before is not None:
                raise
            typer.echo(visible_lines(f"Compared with the uncompiled program: {error}"), err=True)
            name, old = _UNCOMPILED, None
        if old is None:
            old = uncompiled_file(as_program(loaded.build()), new, Path(before_folder))
        changes = diff(old, new, names=(name, after or str(configured)))
    console = build_console()
    for part in report(changes, marks=not console.is_terminal or console.no_color):
        console.print(part, soft_wrap=not console.is_terminal)
    if html is not None:
        page = Console(record=True, width=120, file=io.StringIO(), force_terminal=True, color_system="truecolor")
        for part in report(changes, marks=False):
            page.print(part)
        html.parent.mkdir(parents=True, exist_ok=True)
        html.write_text(page.export_html(), encoding="utf-8")
        console.out(f"Page: {html}")
