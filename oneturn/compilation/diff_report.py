"""A diff of compiled programs for a terminal, a file or a page: in colours, or marked with + and -."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from oneturn.compilation.diff import DemoChange, Figure, PredictorChange, ProgramDiff
from oneturn.core.text_diff import Paragraph, Piece

_STYLES = {"same": "", "removed": "red strike", "added": "green"}
_MARKS = {"same": "{}", "removed": "[-{}-]", "added": "{{+{}+}}"}
_LINES = {"-": "red", "+": "green", "~": "yellow"}


def report(diff: ProgramDiff, *, marks: bool) -> Iterator[RenderableType]:
    """The parts of a report, in their order.

    Args:
        diff: what changed.
        marks: whether words that went and came stand in ``[-…-]`` and ``{+…+}``, for where there are no colours.
    """
    yield Text(f"{diff.before} → {diff.after}", style="bold")
    if diff.is_empty:
        yield Text("The prompts are the same, and so is where they come from.")
    for change in diff.predictors:
        yield from _predictor(change, marks)
    if not diff.predictors and not diff.is_empty:
        yield Text("\nThe prompts are the same.")
    if diff.figures:
        yield Text("\nFigures" if diff.comparable else "\nFigures, of other examples or another LM: they don't compare")
        yield _figures(diff.figures)
    if diff.origin:
        yield Text("\nWhere it comes from")
        yield from (Text(f"  {line}") for line in diff.origin)


def _predictor(change: PredictorChange, marks: bool) -> Iterator[Text]:
    yield Text(f"\n{change.name}", style="bold underline")
    if change.instructions:
        yield Text("Instructions")
        yield from _paragraphs(change.instructions, marks)
        if all(piece.kind == "same" for paragraph in change.instructions for piece in paragraph):
            yield Text("  but there are other empty lines between or around them")
    if change.fields:
        yield Text("Fields")
        yield from (_indented(_words(field, marks)) for field in change.fields)
    yield Text(_count(change))
    for demo in change.demos:
        yield from _demo(demo)


def _paragraphs(paragraphs: Sequence[Paragraph], marks: bool) -> Iterator[Text]:
    for same, group in groupby(paragraphs, key=lambda paragraph: all(piece.kind == "same" for piece in paragraph)):
        found = list(group)
        if same:
            yield Text(f"  … {len(found)} paragraph{'s' * (len(found) > 1)} unchanged", style="dim")
        else:
            yield from (_indented(_words(paragraph, marks)) for paragraph in found)


def _words(paragraph: Paragraph, marks: bool) -> Text:
    text = Text()
    for piece in paragraph:
        text.append(_marked(piece) if marks else piece.text, style=_STYLES[piece.kind])
    return text


def _marked(piece: Piece) -> str:
    """The marks stand at the words, not at the spaces around them."""
    if piece.kind == "same":
        return piece.text
    core = piece.text.strip()
    before, _, after = piece.text.partition(core) if core else ("", "", "")
    return f"{before}{_MARKS[piece.kind].format(core or piece.text)}{after}"


def _indented(text: Text) -> Text:
    return Text("  ") + Text("\n  ").join(text.split("\n"))


def _count(change: PredictorChange) -> str:
    kinds = [demo.kind for demo in change.demos]
    told = [f"{kinds.count(kind)} {kind}" for kind in ("added", "removed", "changed") if kind in kinds]
    order = ", in another order" if change.reordered else ""
    return f"Demos: {', '.join([f'{change.kept} the same{order}', *told])}"


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
