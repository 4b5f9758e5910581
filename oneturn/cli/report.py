"""``oneturn report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    rows: Annotated[Path, typer.Argument(metavar="ROWS", help="What oneturn evaluate --output wrote.")],
    output: Annotated[Path, typer.Option(metavar="FILE", help="The page, .html.")],
    baseline: Annotated[
        Path | None, typer.Option(metavar="ROWS", help="Rows of the same examples, to compare with.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="What the page is called; the name of the rows otherwise.")] = None,
    show: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Write an evaluation's rows as one HTML page: figures, plots, what changed, each row with its steps.

    Examples:

        oneturn report rows.jsonl --output report.html --open

        oneturn report new.parquet --baseline old.parquet --output report.html
    """
    check_page(output, "--output")

    from oneturn.evaluation import Evaluation
    from oneturn.reporting import write_report

    after = Evaluation.read(rows)
    before = None if baseline is None else Evaluation.read(baseline)
    names = ("baseline" if baseline is None else baseline.stem, rows.stem)
    written = write_report(output, after, before, title=title or rows.stem, names=names)
    typer.echo(f"The page: {written}")
    if show:
        typer.launch(str(written))


def check_page(path: Path | None, option: str) -> None:
    """Refuse a page that isn't called one: it would be written over something else."""
    if path is not None and path.suffix not in (".html", ".htm"):
        raise typer.BadParameter(f"{path} must end in .html.", param_hint=option)
