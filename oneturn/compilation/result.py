"""The result of a compile: the compiled program, its candidates, their front, tables and plots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dspy
import pandas as pd

from oneturn.compilation.candidate import Candidate
from oneturn.compilation.front import Front
from oneturn.evaluation.plots import COLOURS, new_figure, scale_scores
from oneturn.evaluation.result import Evaluation
from oneturn.evaluation.statistics import interval
from oneturn.programs.state import Manifest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Compilation:
    """A compiled program with its evaluations on the development split, before and after the compile.

    Attributes:
        program: the compiled program.
        manifest: provenance and cost of the program.
        before: evaluation of the uncompiled program.
        after: evaluation of the compiled program.
        path: the file of the compiled program.
        candidates: the programs that were measured, in order.
        kept: number of the candidate that is the compiled program.
        stopped: the budget limit that ended the compile, such as ``"100 LM calls"``; ``None`` if it ran to its end.
    """

    program: dspy.Module
    manifest: Manifest
    before: Evaluation
    after: Evaluation
    path: Path
    candidates: tuple[Candidate, ...] = ()
    kept: int = 0
    stopped: str | None = None
    _trace: Callable[[dspy.Module, int], str | None] | None = field(default=None, repr=False, compare=False)

    def trace(self, place: int) -> str | None:
        """Run the compiled program again on a development example with the recorded answers, and trace the run.

        Args:
            place: index of the example in ``after``.

        Returns:
            The trace's id; ``None`` once the compile is over.
        """
        return self._trace(self.program, place) if self._trace is not None else None

    def plot(self) -> Figure:
        """Plot the score of each candidate against the LM calls spent.

        Raises:
            OneTurnError: matplotlib isn't installed.
        """
        return _plot(self.candidates, self.candidates[self.kept])

    @property
    def front(self) -> Front:
        """The candidates that no other beats in both score and cost; ``front.table()`` shows them."""
        return Front.of(self.candidates)

    def plot_front(self) -> Figure:
        """Plot the score of each measured candidate against its cost of a question, and the front as a line.

        Raises:
            OneTurnError: matplotlib isn't installed.
        """
        return _plot_front(self.front, self.candidates[self.kept])

    def table(self) -> pd.DataFrame:
        """Return a table with one row per candidate, in the order of measurement.

        ``front`` marks the candidates that no other beats in both score and cost, ``compiled`` the compiled program.
        """
        points = {point.number for point in self.front.points}
        several = len({candidate.lm for candidate in self.candidates}) > 1
        rows = [
            {
                "candidate": "uncompiled" if candidate.uncompiled else candidate.number,
                "LM": candidate.lm if several else None,
                "score": candidate.score,
                "rows": len(candidate.scores),
                "tokens a question": candidate.per_question("tokens"),
                "front": "*" if candidate.number in points else "",
                "compiled": "*" if candidate.number == self.kept else "",
                "LM calls": candidate.spent.lm_calls,
                "tokens": candidate.spent.tokens,
                "minutes": round(candidate.seconds / 60, 1),
                "US dollars": candidate.spent.cost,
            }
            for candidate in self.candidates
        ]
        return pd.DataFrame(rows).dropna(axis="columns", how="all")


def _plot(candidates: Sequence[Candidate], selected: Candidate) -> Figure:
    """Plot scores as dots with 95% intervals, the selected candidate in a ring, the best score so far as a line.

    Args:
        candidates: the measured candidates, in order.
        selected: the candidate that is the compiled program.

    Raises:
        OneTurnError: matplotlib isn't installed.
    """
    full = [candidate for candidate in candidates if candidate.full]
    title = f"From {full[0].score:.0%} to {selected.score:.0%} with {full[-1].spent.lm_calls:,} LM calls"
    figure, axes = new_figure(title, 4.2)
    _draw_baseline(axes, full[0])
    _draw_best_so_far(axes, full)
    for candidate in full:
        _draw_candidate(axes, candidate, candidate.spent.lm_calls)
    _draw_ring(axes, selected.spent.lm_calls, selected.score)
    axes.set_xlabel("LM calls spent up to the measurement", fontsize=10, color=COLOURS.quiet, loc="left")
    axes.set_ylabel("score on the development examples", fontsize=10, color=COLOURS.quiet)
    scale_scores(axes, "y")
    axes.set_xlim(left=0)
    axes.locator_params("x", integer=True)
    return figure


def _plot_front(front: Front, selected: Candidate) -> Figure:
    """Plot scores against costs as dots with 95% intervals, the front as a line, the selected candidate in a ring."""
    points = front.points
    cheapest, best = points[0], points[-1]
    title = f"{len(points)} of {len(front.measured)} candidates are on the front"
    if len(points) > 1:
        factor = front.cost(best) / max(front.cost(cheapest), 1e-12)
        title = f"{best.score:.0%} at {factor:.1f} times the {front.unit} of {cheapest.score:.0%}"
    figure, axes = new_figure(title, 4.2)
    axes.plot(
        [front.cost(point) for point in points],
        [point.score for point in points],
        color=COLOURS.mean,
        linewidth=2,
        zorder=2,
    )
    several = len({candidate.lm for candidate in front.measured}) > 1
    for candidate in front.measured:
        _draw_candidate(axes, candidate, front.cost(candidate), COLOURS.mean if candidate in points else COLOURS.quiet)
    for point in points:
        label = f"{point.name}, {point.lm}" if several else point.name
        place: Any = {"xytext": (8, -12), "textcoords": "offset points", "fontsize": 9, "color": COLOURS.quiet}
        axes.annotate(label, (front.cost(point), point.score), **place)
    _draw_ring(axes, front.cost(selected), selected.score)
    axes.set_xlabel(f"{front.unit} a question", fontsize=10, color=COLOURS.quiet, loc="left")
    axes.set_ylabel("score on the development examples", fontsize=10, color=COLOURS.quiet)
    scale_scores(axes, "y")
    axes.set_xlim(0, 1.15 * max(map(front.cost, front.measured)) or 1)
    return figure


def _draw_baseline(axes: Axes, uncompiled: Candidate) -> None:
    axes.axhline(uncompiled.score, color=COLOURS.quiet, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axes.text(
        0.005,
        uncompiled.score,
        "uncompiled",
        transform=axes.get_yaxis_transform(),
        fontsize=9.5,
        color=COLOURS.quiet,
        va="bottom",
        ha="left",
    )


def _draw_best_so_far(axes: Axes, full: Sequence[Candidate]) -> None:
    best: list[float] = []
    spent: list[int] = []
    for candidate in full:
        best.append(max(candidate.score, *best[-1:]) if best else candidate.score)
        spent.append(candidate.spent.lm_calls)
    axes.step(spent, best, where="post", color=COLOURS.mean, linewidth=2, zorder=2)


def _draw_candidate(axes: Axes, candidate: Candidate, x: float, colour: str = COLOURS.mean) -> None:
    low, high = interval(candidate.scores)
    line_style: Any = {"linewidth": 6, "solid_capstyle": "butt", "zorder": 1.5}
    axes.plot([x, x], [low, high], color=COLOURS.rows, **line_style)
    axes.plot(x, candidate.score, "o", color=colour, markersize=7, clip_on=False, zorder=3)


def _draw_ring(axes: Axes, x: float, score: float) -> None:
    """Mark the compiled program."""
    ring: Any = {"markerfacecolor": "none", "markeredgecolor": COLOURS.ink, "markersize": 14, "clip_on": False}
    axes.plot(x, score, "o", **ring)
