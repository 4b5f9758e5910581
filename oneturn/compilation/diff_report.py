"""Render a diff of compiled programs for a terminal, a file or a page, in colours or with + and - marks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from oneturn.compilation.diff import DemoChange, Figure, PredictorChange, ProgramDiff
from oneturn.core.text_diff import Paragraph, mark

_STYLES = {"same": "", "removed": "red strike", "added": "green"}
_LINES = {"-": "red", "+": "green", "~": "yellow"}


def report(diff: ProgramDiff, *, marks: bool) -> Iterator[RenderableType]:
    """Yield the parts of the report in order.

    Args:
        diff: the changes.
        marks: whether to mark removed and added words with ``[-…-]`` and ``{+…+}``, for output without colours.
    """
    yield Text(f"{diff.before} → {diff.after}", style="bold")
    if diff.is_empty:
        yield Text("The prompts and their origin are the same.")
    for change in diff.predictors:
        yield from _predictor(change, marks)
    if not diff.predictors and not diff.is_empty:
        yield Text("\nThe prompts are the same.")
    if diff.figures:
        yield Text("\nFigures" if diff.comparable else "\nFigures (not comparable: other examples or another LM)")
        yield _figures(diff.figures)
    if diff.origin:
        yield Text("\nOrigin")
        yield from (Text(f"  {line}") for line in diff.origin)


def _predictor(change: PredictorChange, marks: bool) -> Iterator[Text]:
    yield Text(f"\n{change.name}", style="bold underline")
    if change.instructions:
        yield Text("Instructions")
        yield from _paragraphs(change.instructions, marks)
        if all(piece.kind == "same" for paragraph in change.instructions for piece in paragraph):
            yield Text("  only the empty lines between or around them changed")
    if change.fields:
        yield Text("Fields")
        yield from (_indent(_words(field, marks)) for field in change.fields)
    yield Text(_count(change))
    for demo in change.demos:
        yield from _demo(demo)


def _paragraphs(paragraphs: Sequence[Paragraph], marks: bool) -> Iterator[Text]:
    for same, group in groupby(paragraphs, key=lambda paragraph: all(piece.kind == "same" for piece in paragraph)):
        paragraphs_in_group = list(group)
        if same:
            yield Text(
                f"  … {len(paragraphs_in_group)} paragraph{'s' * (len(paragraphs_in_group) > 1)} unchanged", style="dim"
            )
        else:
            yield from (_indent(_words(paragraph, marks)) for paragraph in paragraphs_in_group)


def _words(paragraph: Paragraph, marks: bool) -> Text:
    text = Text()
    for piece in paragraph:
        text.append(mark(piece) if marks else piece.text, style=_STYLES[piece.kind])
    return text


def _indent(text: Text) -> Text:
    return Text("  ") + Text("\n  ").join(text.split("\n"))


def _count(change: PredictorChange) -> str:
    kinds = [demo.kind for demo in change.demos]
    counts = [f"{kinds.count(kind)} {kind}" for kind in ("added", "removed", "changed") if kind in kinds]
    order = ", in another order" if change.reordered else ""
    return f"Demos: {', '.join([f'{change.kept} the same{order}', *counts])}"


def _demo(demo: DemoChange) -> Iterator[Text]:
    yield Text(f"  {demo.kind}: {demo.title}", style="italic")
    for line in demo.lines:
        yield Text(f"    {line}", style=_LINES.get(line[:1], ""))


def _figures(figures: Sequence[Figure]) -> Table:
    table = Table("", "before", "after")
    for column in table.columns[1:]:
        column.justify = "right"
    for figure in figures:
        table.add_row(figure.name, *(_number(figure.name, value) for value in (figure.before, figure.after)))
    return table


def _number(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1%}" if name.startswith("score") else f"{value:,.2f}".rstrip("0").rstrip(".")
