"""What a compile returns: the compiled program, its candidates, their table and their figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dspy
import pandas as pd

from oneturn.core.usage import Totals
from oneturn.errors import OneTurnError
from oneturn.evaluation.plots import COLOURS, frame_quietly
from oneturn.evaluation.result import Evaluation
from oneturn.evaluation.statistics import interval
from oneturn.programs.state import Manifest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Candidate:
    """A program that was measured.

    Attributes:
        number: its place in the order of measurement, from 0, which is the uncompiled program.
        program: the program, as it was when it was measured.
        scores: what each example was worth, 0 to 1, in their order.
        full: whether it was measured on all development examples.
        spent: what the compile had cost by then.
        seconds: since the compile's beginning, over all its starts.
    """

    number: int
    program: dspy.Module
    scores: tuple[float, ...]
    full: bool
    spent: Totals
    seconds: float

    @property
    def score(self) -> float:
        """The mean of its scores."""
        return sum(self.scores) / len(self.scores)


@dataclass(frozen=True)
class Compilation:
    """A compiled program with how it did before and after, on the development split.

    Attributes:
        program: the compiled program.
        manifest: where it comes from, and what it cost.
        before: the uncompiled program's evaluation.
        after: the compiled program's evaluation.
        path: where it is saved.
        candidates: what was measured on the way.
        kept: the number of the candidate that is the compiled program.
        stopped: the limit of the budget that ended it, such as ``"100 LM calls"``; ``None`` if it came to its end.
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
        """Run the compiled program once more on a development example, traced, with what it was answered before.

        Args:
            place: the example's place in ``after``.

        Returns:
            The trace's id; ``None`` once the compile is over.
        """
        return self._trace(self.program, place) if self._trace is not None else None

    def plot(self) -> Figure:
        """The score of each candidate against what had been spent.

        Raises:
            OneTurnError: matplotlib isn't installed.
        """
        return _plot(self.candidates, self.candidates[self.kept])

    def table(self) -> pd.DataFrame:
        """The candidates, a row each, in the order of their measurement."""
        rows = [
            {
                "candidate": "uncompiled" if found.number == 0 else found.number,
                "score": found.score,
                "rows": len(found.scores),
                "LM calls": found.spent.lm_calls,
                "tokens": found.spent.tokens,
                "minutes": round(found.seconds / 60, 1),
                "US dollars": found.spent.cost,
            }
            for found in self.candidates
        ]
        return pd.DataFrame(rows).dropna(axis="columns", how="all")


def _plot(candidates: Sequence[Candidate], kept: Candidate) -> Figure:
    """Dots with their 95% intervals, the one that was kept in a ring, the best so far as a line.

    Args:
        candidates: what was measured, in order.
        kept: the one of them that was kept.

    Raises:
        OneTurnError: matplotlib isn't installed.
    """
    try:
        import matplotlib.pyplot as plt
    except ModuleNotFoundError as error:
        raise OneTurnError('Figures need matplotlib: pip install "oneturn[notebooks]"') from error
    figure, axes = plt.subplots(figsize=(8, 4.2), dpi=110, layout="constrained")
    plt.close(figure)  # a notebook shows what its cell returns
    full = [candidate for candidate in candidates if candidate.full]
    _baseline(axes, full[0])
    _steps(axes, full)
    for candidate in full:
        _dot(axes, candidate)
    ring: Any = {"markerfacecolor": "none", "markeredgecolor": COLOURS.ink, "markersize": 14, "clip_on": False}
    axes.plot(kept.spent.lm_calls, kept.score, "o", **ring)
    title = f"From {full[0].score:.0%} to {kept.score:.0%} with {full[-1].spent.lm_calls:,} LM calls"
    frame_quietly(axes, title)
    axes.set_xlabel("LM calls spent when it had been measured", fontsize=10, color=COLOURS.quiet, loc="left")
    axes.set_ylabel("score on the development examples", fontsize=10, color=COLOURS.quiet)
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"], fontsize=10, color=COLOURS.quiet)
    axes.set_xlim(left=0)
    axes.locator_params("x", integer=True)
    return figure


def _baseline(axes: Axes, uncompiled: Candidate) -> None:
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


def _steps(axes: Axes, full: Sequence[Candidate]) -> None:
    best: list[float] = []
    spent: list[int] = []
    for candidate in full:
        best.append(max(candidate.score, *best[-1:]) if best else candidate.score)
        spent.append(candidate.spent.lm_calls)
    axes.step(spent, best, where="post", color=COLOURS.mean, linewidth=2, zorder=2)


def _dot(axes: Axes, candidate: Candidate) -> None:
    low, high = interval(candidate.scores)
    x = candidate.spent.lm_calls
    behind_the_steps: Any = {"linewidth": 6, "solid_capstyle": "butt", "zorder": 1.5}
    axes.plot([x, x], [low, high], color=COLOURS.rows, **behind_the_steps)
    axes.plot(x, candidate.score, "o", color=COLOURS.mean, markersize=7, clip_on=False, zorder=3)
