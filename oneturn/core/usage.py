"""Cost of LM calls: DSPy usage trackers that also count calls, across threads."""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dspy
from dspy.lm15 import Message, Response, TextPart, Usage

from oneturn.core._dspy import UsageTracker, estimate_cost, has_price_list


class Spend(UsageTracker):
    """Counts LM calls and tokens. Answers from DSPy's cache are free and aren't counted.

    Attributes:
        replayed: seconds that replies replayed from a journal took originally.
    """

    def __init__(self) -> None:
        super().__init__()
        self.replayed = 0.0

    def __deepcopy__(self, memo: dict[int, Any]) -> Spend:
        """Share the tracker: DSPy gives each thread a copy and discards it."""
        return self

    def get_total_tokens(self) -> dict[str, dict[str, Any]]:
        """Return a snapshot of the token counts by LM; other threads may still be counting."""
        snapshot = UsageTracker()
        snapshot.usage_data = dict(self.usage_data)
        total: dict[str, dict[str, Any]] = snapshot.get_total_tokens()
        return total

    @property
    def lm_calls(self) -> int:
        """Number of LM calls answered."""
        return len(self._entries())

    @property
    def prompt_tokens(self) -> int:
        """Number of input tokens."""
        return sum(entry.get("prompt_tokens") or 0 for entry in self._entries())

    @property
    def completion_tokens(self) -> int:
        """Number of output tokens."""
        return sum(entry.get("completion_tokens") or 0 for entry in self._entries())

    @property
    def cost(self) -> float | None:
        """Cost in US dollars, from DSPy's prices for short prompts, without discounts for cached input.

        ``None`` if the price of any LM is unknown.
        """
        costs = [_cost(model, entries) for model, entries in list(self.usage_data.items())]
        return None if None in costs else sum(cost for cost in costs if cost is not None)

    def to_dict(self) -> dict[str, int | float | None]:
        """Return calls, tokens and cost as a dict."""
        return {
            "lm_calls": self.lm_calls,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "cost": self.cost,
        }

    def _entries(self) -> list[dict[str, Any]]:
        return [entry for calls in list(self.usage_data.values()) for entry in calls]


def _cost(model: str, entries: Sequence[Mapping[str, Any]]) -> float | None:
    prices = _prices(model) if has_price_list() else None
    if prices is None:
        return None
    prompt, completion = (
        sum(entry.get(name) or 0 for entry in entries) for name in ("prompt_tokens", "completion_tokens")
    )
    return prompt * prices[0] + completion * prices[1]


@functools.cache
def _prices(model: str) -> tuple[float, float] | None:
    """Return the price in US dollars of an input token and of an output token; ``None`` if unknown.

    DSPy loads its price list, over the network if allowed, when it prices a call itself. It doesn't for an LM without
    a price, and neither does this.
    """
    provider, _, name = model.partition("/")
    message = Message.assistant(TextPart("-"))  # prices depend on token counts, not on content
    costs = []
    for usage in (Usage(input_tokens=1000, output_tokens=0), Usage(input_tokens=0, output_tokens=1000)):
        response = Response(id=None, model=name, message=message, finish_reason="stop", usage=usage)
        costs.append(estimate_cost(response, provider=provider, requested_model=name)[0])
    return None if None in costs else (costs[0] / 1000, costs[1] / 1000)


@contextmanager
def spending(spend: Spend | None = None) -> Iterator[Spend]:
    """Count the LM calls of the block in ``spend``, or a new one; an enclosing tracker counts them too."""
    spend = Spend() if spend is None else spend
    outer = dspy.settings.usage_tracker
    try:
        with dspy.context(usage_tracker=spend), _counting(spend):
            yield spend
    finally:
        if outer is not None:
            for model, entries in list(spend.usage_data.items()):
                outer.usage_data[model].extend(entries)


def note_replayed(seconds: float) -> None:
    """Add the original duration of a replayed reply to every active ``spending`` block."""
    for spend in _open.get():
        spend.replayed += seconds


_open: contextvars.ContextVar[tuple[Spend, ...]] = contextvars.ContextVar("oneturn_spend", default=())


@contextmanager
def _counting(spend: Spend) -> Iterator[None]:
    token = _open.set((*_open.get(), spend))
    try:
        yield
    finally:
        _open.reset(token)


class RunUsage(UsageTracker):
    """A ``dspy`` usage tracker shared by all threads; ``dspy.Parallel`` would copy it for each of them."""

    def __deepcopy__(self, memo: dict[int, Any]) -> RunUsage:
        return self

    def add_to(self, outer: UsageTracker) -> None:
        """Add all usage to the enclosing tracker, as ``dspy.track_usage`` does."""
        for model, entries in self.usage_data.items():
            outer.usage_data[model].extend(entries)


@dataclass(frozen=True)
class Totals:
    """Total calls, tokens and cost.

    Attributes:
        lm_calls: number of LM calls answered.
        prompt_tokens: number of input tokens.
        completion_tokens: number of output tokens.
        cost: cost in US dollars; ``None`` if no price is known.
    """

    lm_calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None

    def __add__(self, other: Totals) -> Totals:
        costs = [cost for cost in (self.cost, other.cost) if cost is not None]
        return Totals(
            self.lm_calls + other.lm_calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            sum(costs) if costs else None,
        )

    @property
    def tokens(self) -> int:
        """Number of input and output tokens."""
        return self.prompt_tokens + self.completion_tokens
