"""The budget of a compile: blocks LM calls beyond its limits."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from oneturn.compilation.journal import Journal
from oneturn.config import BudgetConfig
from oneturn.core.usage import Usage
from oneturn.errors import RunError

OnUsage = Callable[[Usage], object]

_log = logging.getLogger(__name__)


class BudgetSpent(BaseException):
    """The budget is spent and the compile has to end.

    Not an ``Exception``: an optimizer must not treat it as a failed example.
    """


class Budget:
    """Allows LM calls until a limit is reached.

    Args:
        limits: the limits.
        journal: holds the usage of all runs of the compile.
        on_usage: called after each LM call with the usage so far.
    """

    def __init__(self, limits: BudgetConfig, journal: Journal, on_usage: OnUsage):
        self._limits = limits
        self._journal = journal
        self._on_usage = on_usage
        self._condition = threading.Condition()
        self._active_calls = 0
        self._close_reason: str | None = None
        self._unpriced: set[str] = set()

    @property
    def cost_limit_unenforceable(self) -> bool:
        """Whether a cost limit is set while no call so far has a known price."""
        spent = self._journal.totals
        return self._limits.cost is not None and spent.cost is None and spent.lm_calls > 0

    def note_price(self, model: str, cost: float | None) -> None:
        """Warn, once per LM, that the cost limit doesn't include an LM without a known price."""
        if self._limits.cost is None or cost is not None or model in self._unpriced:
            return
        self._unpriced.add(model)
        limit = f"{self._limits.cost:,.10g}"
        _log.warning("No price of %s is known: its calls don't count towards the limit of %s US dollars.", model, limit)

    def close(self, reason: str) -> None:
        """Refuse further calls with a ``RunError``, so that the example that makes one fails.

        Waits until the active calls of other threads are answered and recorded, since they are paid for.

        Args:
            reason: shown in the error.
        """
        with self._condition:
            self._close_reason = reason
            while self._active_calls:
                self._condition.wait()

    @contextmanager
    def call(self) -> Iterator[None]:
        """Reserve one LM call for the block, then report the usage.

        Raises:
            BudgetSpent: a limit is reached.
            RunError: the budget is closed.
        """
        with self._condition:
            if self._close_reason is not None:
                raise RunError(f"No further LM calls are made: {self._close_reason}.", "budget_spent")
            spent = self._journal.totals
            active = Usage(lm_calls=self._active_calls, cost=0.0)
            if reason := reached_limit(self._limits, spent + active, self._journal.seconds):
                raise BudgetSpent(reason)
            self._active_calls += 1
        try:
            yield
        finally:
            with self._condition:
                self._active_calls -= 1
                self._condition.notify_all()
            self._on_usage(self._journal.totals)


def reached_limit(limits: BudgetConfig, spent: Usage, seconds: float) -> str | None:
    """Return the limit that is reached, such as ``"100 LM calls"``; ``None`` if no limit is reached."""
    limits_and_values: list[tuple[str, float | None, float | None]] = [
        ("LM calls", limits.lm_calls, spent.lm_calls),
        ("tokens", limits.tokens, spent.tokens),
        ("minutes", limits.minutes, seconds / 60),
        ("US dollars", limits.cost, spent.cost),
    ]
    for unit, limit, value in limits_and_values:
        if limit is not None and value is not None and value >= limit:
            return f"{limit:,.10g} {unit}"
    return None
