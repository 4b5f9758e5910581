"""``oneturn diff``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from oneturn.cli.options import AGENT_FILE, AgentFile, ConfigFile, load


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

    from oneturn.compiling.diff import diff
    from oneturn.compiling.diff_report import report
    from oneturn.compiling.sources import compiled_file
    from oneturn.tracking import use_tracking

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
