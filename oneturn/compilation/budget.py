"""What a compile may cost at most: no LM call is made beyond it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from oneturn.compilation.journal import Journal
from oneturn.config import BudgetConfig
from oneturn.core.usage import Totals
from oneturn.errors import RunError

OnSpent = Callable[[Totals], object]

_log = logging.getLogger(__name__)


class BudgetSpent(BaseException):
    """The budget is spent: the compile has to end.

    Not an ``Exception``: an optimizer must not take it for an example that failed.
    """


class Budget:
    """Lets LM calls pass while there is something left.

    Args:
        limits: what may be spent.
        journal: what has been spent, over all starts of the compile.
        on_usage: told after each call what has been spent so far.
    """

    def __init__(self, limits: BudgetConfig, journal: Journal, on_usage: OnSpent):
        self._limits = limits
        self._journal = journal
        self._on_spent = on_usage
        self._free = threading.Condition()
        self._under_way = 0
        self._closed: str | None = None
        self._unpriced: set[str] = set()

    @property
    def holds_nothing_in_money(self) -> bool:
        """Whether there is a limit in money, and of what was asked so far no price is known."""
        spent = self._journal.totals
        return self._limits.cost is not None and spent.cost is None and spent.lm_calls > 0

    def note_price(self, model: str, cost: float | None) -> None:
        """Say, once of each LM, that a limit in money doesn't hold for it, as no price of it is known."""
        if self._limits.cost is None or cost is not None or model in self._unpriced:
            return
        self._unpriced.add(model)
        limit = f"{self._limits.cost:,.10g}"
        _log.warning("No price of %s is known: its calls don't count to the limit of %s US dollars.", model, limit)

    def close(self, reason: str) -> None:
        """From now on a call is refused as one that failed: the example that needs it has no answer.

        Returns when the calls are answered, and written down, that other threads have under way: they are paid for.
        """
        with self._free:
            self._closed = reason
            while self._under_way:
                self._free.wait()

    @contextmanager
    def call(self) -> Iterator[None]:
        """Let a call pass, and tell afterwards what has been spent.

        Raises:
            BudgetSpent: there is nothing left.
        """
        with self._free:
            if self._closed is not None:
                raise RunError(f"The LM isn't asked any more: {self._closed}.", "budget_spent")
            spent = self._journal.totals
            at_work = Totals(lm_calls=self._under_way)
            if reason := over(self._limits, spent + at_work, self._journal.seconds):
                raise BudgetSpent(reason)
            self._under_way += 1
        try:
            yield
        finally:
            with self._free:
                self._under_way -= 1
                self._free.notify_all()
            self._on_spent(self._journal.totals)


def over(limits: BudgetConfig, spent: Totals, seconds: float) -> str | None:
    """The limit that is reached, such as ``"100 LM calls"``; ``None`` if none is."""
    measured: list[tuple[str, float | None, float | None]] = [
        ("LM calls", limits.lm_calls, spent.lm_calls),
        ("tokens", limits.tokens, spent.tokens),
        ("minutes", limits.minutes, seconds / 60),
        ("US dollars", limits.cost, spent.cost),
    ]
    for unit, limit, value in measured:
        if limit is not None and value is not None and value >= limit:
            return f"{limit:,.10g} {unit}"
    return None
