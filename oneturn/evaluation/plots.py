"""Plots of evaluations for notebooks: the scores, their mean, and its confidence interval.

Needs the extra: ``pip install "oneturn[notebooks]"``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from oneturn.errors import OneTurnError
from oneturn.evaluation.result import Evaluation
from oneturn.evaluation.statistics import interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class _Colours:
    ink: str = "#1f2328"
    quiet: str = "#656d76"
    grid: str = "#e4e7eb"
    rows: str = "#bfd3e6"
    mean: str = "#0b5fa5"


COLOURS = _Colours()
_SMALLEST, _LARGEST = 45, 330  # areas of the discs, in square points


def score_plot(evaluations: Mapping[str, Evaluation], title: str = "") -> Figure:
    """Plot one line per evaluation, the first on top; ``title`` should state the finding."""
    return _plot({name: evaluation.rows["score"].to_numpy() for name, evaluation in evaluations.items()}, title)


def category_plot(evaluation: Evaluation, column: str = "category", title: str = "") -> Figure:
    """Plot one line per value of a label, the best on top; ``title`` should state the finding."""
    ranked = evaluation.by(column).sort_values("score", ascending=False, kind="stable").index
    rows = evaluation.rows
    return _plot({str(value): rows.loc[rows[column] == value, "score"].to_numpy() for value in ranked}, title)


def new_figure(title: str, height: float) -> tuple[Figure, Axes]:
    """Return a figure with one plot in the shared style: a left-aligned title and no spines.

    Args:
        title: the title, which should state the finding.
        height: the height in inches.

    Raises:
        OneTurnError: matplotlib isn't installed.
    """
    try:
        import matplotlib.pyplot as plt
    except ModuleNotFoundError as error:
        raise OneTurnError('Figures need matplotlib: pip install "oneturn[notebooks]"') from error
    figure, axes = plt.subplots(figsize=(8, height), dpi=110, layout="constrained")
    plt.close(figure)  # a notebook shows the returned figure; an open one would be shown twice
    axes.set_title(title, loc="left", fontsize=12.5, weight="bold", color=COLOURS.ink, pad=14)
    axes.tick_params(length=0, pad=8, colors=COLOURS.quiet)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    return figure, axes


def check_figure_file(path: Path) -> None:
    """Check that a figure can be written to a file, before what it shows is paid for.

    Raises:
        OneTurnError: matplotlib isn't installed, it has no such format, or there is no folder for the file.
    """
    figure, _ = new_figure("", 1)
    formats = figure.canvas.get_supported_filetypes()
    if (suffix := path.suffix.removeprefix(".").lower()) not in formats:
        raise OneTurnError(f"{path}: a figure can't be written as {suffix or 'this'!r}; use .svg, .png or .pdf.")
    if not path.absolute().parent.is_dir():
        raise OneTurnError(f"There is no folder for {path}.")


def scale_scores(axes: Axes, axis: Literal["x", "y"]) -> None:
    """Scale one axis of a plot from 0 to 100%."""
    axes.set(**{f"{axis}lim": (0, 1)})
    (axes.xaxis if axis == "x" else axes.yaxis).set_ticks(
        [0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"], fontsize=10, color=COLOURS.quiet
    )


def _plot(groups: Mapping[str, Any], title: str) -> Figure:
    figure, axes = new_figure(title, 1.5 + 0.5 * len(groups))
    for line, scores in enumerate(groups.values()):
        _draw_line(axes, line, np.asarray(scores, dtype=float))
    _label_axes(axes, list(groups))
    return figure


def _draw_line(axes: Axes, line: int, scores: Any) -> None:
    values, counts = np.unique(scores.round(3), return_counts=True)
    areas = _SMALLEST + (_LARGEST - _SMALLEST) * (counts - 1) / max(len(scores) - 1, 1)
    axes.scatter(values, np.full(len(values), line), s=areas, color=COLOURS.rows, linewidth=0, clip_on=False, zorder=2)
    low, high = interval(scores)
    axes.plot(
        [low, high], [line, line], color=COLOURS.mean, linewidth=2.5, solid_capstyle="butt", clip_on=False, zorder=3
    )
    axes.plot(scores.mean(), line, "o", color=COLOURS.mean, markersize=8, clip_on=False, zorder=4)
    beside = axes.get_yaxis_transform()  # x as a fraction of the axes, y in data coordinates
    axes.text(
        1.05, line, f"{scores.mean():.0%}", transform=beside, va="center", fontsize=11, color=COLOURS.ink, weight="bold"
    )
    axes.text(1.14, line, f"{len(scores)} rows", transform=beside, va="center", fontsize=10, color=COLOURS.quiet)


def _label_axes(axes: Axes, names: list[str]) -> None:
    scale_scores(axes, "x")
    axes.set_yticks(range(len(names)), names, fontsize=11, color=COLOURS.ink)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(
        "score: mean (dot), its 95% interval (line), the rows' own scores (pale, larger for more rows)",
        fontsize=9.5,
        color=COLOURS.quiet,
        loc="left",
        labelpad=8,
    )
    axes.tick_params(axis="y", pad=16)  # keep labels clear of a disc at 0%
    axes.grid(axis="x", color=COLOURS.grid, zorder=0)
