"""Progress of a compile: what it has spent and what is left."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from tqdm.auto import tqdm

from oneturn.agent import Agent
from oneturn.compilation.callbacks import CompileCallback
from oneturn.compilation.candidate import Candidate
from oneturn.compilation.recipes.work import Estimate
from oneturn.config import BudgetConfig
from oneturn.core.terminal import can_redraw
from oneturn.core.usage import Usage

_LOG_SECONDS = 30.0


class SpendBar(CompileCallback):
    """A bar of the LM calls, up to the budget's limit or else the estimate; in a terminal and in a notebook.

    Where nothing can be drawn twice, such as in a log of CI, it is a line every half a minute.

    Args:
        budget: what may be spent; ``None`` for the agent's own.
    """

    def __init__(self, budget: BudgetConfig | None = None):
        self._budget = budget
        self._bar: Any = None
        self._best = 0.0
        self._before: tuple[Usage, float] = Usage(), 0.0

    def on_start(self, agent: Agent, recipe: str, key: str, estimate: Estimate | None) -> None:
        """Open the bar."""
        self._budget = self._budget or agent.config.compile.budget
        if estimate is not None:
            tqdm.write(f"estimate: {estimate}")
        total = self._budget.lm_calls or (round(estimate.lm_calls[1]) if estimate is not None else None)
        options: dict[str, Any] = {"position": 1, "mininterval": 0, "disable": False}
        if not can_redraw():
            intervals = {"mininterval": _LOG_SECONDS, "maxinterval": _LOG_SECONDS}
            options |= {"position": 0, "file": _Lines(), **intervals}
        options |= {"initial": self._before[0].lm_calls, "postfix": self._format_spend(*self._before)}
        self._bar = tqdm(total=total, desc=f"compile, {recipe}", unit="LM call", miniters=1, **options)

    def on_usage(self, totals: Usage, seconds: float) -> None:
        """Update the bar."""
        if self._bar is None:  # usage of earlier runs and of the estimate
            self._before = totals, seconds
        else:
            self._bar.set_postfix_str(self._format_spend(totals, seconds), refresh=False)
            self._bar.update(totals.lm_calls - self._bar.n)

    def on_candidate(self, candidate: Candidate) -> None:
        """Print the score of a new best candidate."""
        if candidate.full and (candidate.uncompiled or candidate.score > self._best):
            self._best = max(self._best, candidate.score)
            tqdm.write(f"{candidate.name}: {candidate.score:.1%} after {candidate.spent.lm_calls} LM calls")

    def on_end(self, compilation: object) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()

    def on_interrupted(self, error: BaseException) -> None:
        """Close the bar; after Ctrl-C, say what is waited for."""
        self.on_end(error)
        if isinstance(error, KeyboardInterrupt):
            print(
                "Stopping: recording LM calls in progress. Ctrl-C again ends at once.",
                file=sys.stderr,
            )

    def _format_spend(self, totals: Usage, seconds: float) -> str:
        return ", ".join(format_spend(totals, seconds, self._budget or BudgetConfig()))


class _Lines:
    """The standard error stream with a line for each state of a bar."""

    def write(self, text: str) -> None:
        if line := text.strip():
            sys.stderr.write(f"{line}\n")

    def flush(self) -> None:
        sys.stderr.flush()


def format_spend(totals: Usage, seconds: float, limits: BudgetConfig) -> Iterator[str]:
    """Yield each kind of usage as text, with its limit if there is one."""
    yield _with_limit(f"{totals.tokens / 1000:,.0f}k", limits.tokens and f"{limits.tokens / 1000:,.0f}k", "tokens")
    yield _with_limit(f"{seconds / 60:.1f}", limits.minutes and f"{limits.minutes:g}", "min")
    if totals.cost is not None:
        yield _with_limit(f"${totals.cost:.2f}", limits.cost and f"${limits.cost:.2f}", "")


def _with_limit(value: str, limit: Any, unit: str) -> str:
    return f"{value}{f' of {limit}' if limit else ''} {unit}".strip()
