"""A compile as a figure: what each candidate scored, against what had been spent by then.

Needs the extra: ``pip install "oneturn[notebooks]"``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from oneturn.compilation.callbacks import Candidate
from oneturn.errors import OneTurnError
from oneturn.evaluation.plots import COLOURS, frame_quietly
from oneturn.evaluation.statistics import interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def compile_plot(candidates: Sequence[Candidate], kept: Candidate) -> Figure:
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
