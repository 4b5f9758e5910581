"""What a compile has spent and what is left, shown while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tqdm.auto import tqdm

from oneturn.agent import Agent
from oneturn.compiling.estimate import Estimate
from oneturn.compiling.totals import Totals
from oneturn.compiling.watching import Candidate, CompileListener
from oneturn.config import BudgetConfig


class SpendBar(CompileListener):
    """A bar of the LM calls, up to the budget's limit or else the estimate; in a terminal and in a notebook.

    Args:
        budget: what may be spent; ``None`` for the agent's own.
    """

    def __init__(self, budget: BudgetConfig | None = None):
        self._budget = budget
        self._bar: Any = None
        self._best = 0.0

    def on_start(self, agent: Agent, recipe: str, key: str, estimate: Estimate | None) -> None:
        """Open the bar."""
        self._budget = self._budget or agent.config.compile.budget
        if estimate is not None:
            tqdm.write(f"expected: {estimate}")
        most = self._budget.lm_calls or (round(estimate.lm_calls[1]) if estimate is not None else None)
        self._bar = tqdm(total=most, desc=f"compile, {recipe}", unit="LM call", position=1, leave=True)

    def on_spent(self, totals: Totals, seconds: float) -> None:
        """Move it on."""
        if self._bar is None:  # the estimate's own questions
            return
        self._bar.n = totals.lm_calls
        self._bar.set_postfix_str(", ".join(spent(totals, seconds, self._limits())))

    def on_candidate(self, candidate: Candidate) -> None:
        """Say how good the best is so far."""
        if candidate.full and (candidate.number == 0 or candidate.score > self._best):
            self._best = candidate.score
            name = "uncompiled" if candidate.number == 0 else f"candidate {candidate.number}"
            tqdm.write(f"{name}: {candidate.score:.1%} after {candidate.spent.lm_calls} LM calls")

    def on_end(self, compilation: object) -> None:
        """Close it."""
        if self._bar is not None:
            self._bar.close()

    def _limits(self) -> BudgetConfig:
        return self._budget or BudgetConfig()


def spent(totals: Totals, seconds: float, limits: BudgetConfig) -> Iterator[str]:
    """What has been spent, each with its limit if there is one."""
    yield _with_limit(f"{totals.tokens / 1000:,.0f}k", limits.tokens and f"{limits.tokens / 1000:,.0f}k", "tokens")
    yield _with_limit(f"{seconds / 60:.1f}", limits.minutes and f"{limits.minutes:g}", "min")
    if totals.cost is not None:
        yield _with_limit(f"${totals.cost:.2f}", limits.cost and f"${limits.cost:.2f}", "")


def _with_limit(value: str, limit: Any, unit: str) -> str:
    return f"{value}{f' of {limit}' if limit else ''} {unit}".strip()
