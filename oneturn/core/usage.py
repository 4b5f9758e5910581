"""What LM calls cost: a DSPy usage tracker that also counts the calls, across threads."""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dspy
from dspy.clients import model_metadata
from dspy.clients.costs import estimate_cost
from dspy.lm15 import Message, Response, TextPart, Usage
from dspy.utils.usage_tracker import UsageTracker


class Spend(UsageTracker):
    """Counts LM calls and tokens. A call that DSPy's cache answered costs nothing and isn't counted.

    Attributes:
        replayed: seconds that answers took when they were first given, where a journal gave them again.
    """

    def __init__(self) -> None:
        super().__init__()
        self.replayed = 0.0

    def __deepcopy__(self, memo: dict[int, Any]) -> Spend:
        """DSPy gives each thread a copy of the tracker and drops it; one that is shared sees every call."""
        return self

    def get_total_tokens(self) -> dict[str, dict[str, Any]]:
        """Token counts by LM, as they are now: other threads may still be counting."""
        now = UsageTracker()
        now.usage_data = dict(self.usage_data)
        total: dict[str, dict[str, Any]] = now.get_total_tokens()
        return total

    @property
    def lm_calls(self) -> int:
        """Number of calls that an LM answered."""
        return len(self._entries())

    @property
    def prompt_tokens(self) -> int:
        """Tokens read."""
        return sum(entry.get("prompt_tokens") or 0 for entry in self._entries())

    @property
    def completion_tokens(self) -> int:
        """Tokens written."""
        return sum(entry.get("completion_tokens") or 0 for entry in self._entries())

    @property
    def cost(self) -> float | None:
        """US dollars by the prices that DSPy knows for short prompts, without rebates for what was cached.

        ``None`` if the price of one of the LMs isn't known.
        """
        costs = [_cost(model, entries) for model, entries in list(self.usage_data.items())]
        return None if None in costs else sum(cost for cost in costs if cost is not None)

    def to_dict(self) -> dict[str, int | float | None]:
        """The figures by name."""
        return {
            "lm_calls": self.lm_calls,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "cost": self.cost,
        }

    def _entries(self) -> list[dict[str, Any]]:
        return [entry for calls in list(self.usage_data.values()) for entry in calls]


def _cost(model: str, entries: Sequence[Mapping[str, Any]]) -> float | None:
    prices = _prices(model) if model_metadata._data is not None else None
    if prices is None:
        return None
    read, written = (sum(entry.get(name) or 0 for entry in entries) for name in ("prompt_tokens", "completion_tokens"))
    return read * prices[0] + written * prices[1]


@functools.cache
def _prices(model: str) -> tuple[float, float] | None:
    """US dollars for a token read and for one written.

    DSPy reads its price list, over the network if it may, when it prices a call itself. For an LM that has no price it
    never does, and this doesn't either.
    """
    provider, _, name = model.partition("/")
    message = Message.assistant(TextPart("-"))  # prices are by token, whatever they say
    found = []
    for usage in (Usage(input_tokens=1000, output_tokens=0), Usage(input_tokens=0, output_tokens=1000)):
        response = Response(id=None, model=name, message=message, finish_reason="stop", usage=usage)
        found.append(estimate_cost(response, provider=provider, requested_model=name)[0])
    return None if None in found else (found[0] / 1000, found[1] / 1000)


@contextmanager
def spending(spend: Spend | None = None) -> Iterator[Spend]:
    """Count what the block's LM calls cost, in ``spend`` if there is one; a tracker that is open counts them too."""
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
    """Count what an answer took that isn't waited for now, in every block that counts."""
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
    """A ``dspy`` usage tracker that stays one: ``dspy.Parallel`` copies the tracker for each of its threads."""

    def __deepcopy__(self, memo: dict[int, Any]) -> RunUsage:
        return self

    def add_to(self, outer: UsageTracker) -> None:
        """Add all that was used to the tracker around the run, as ``dspy.track_usage`` does."""
        for model, entries in self.usage_data.items():
            outer.usage_data[model].extend(entries)


@dataclass(frozen=True)
class Totals:
    """Calls, tokens and money.

    Attributes:
        lm_calls: calls that an LM answered.
        prompt_tokens: tokens read.
        completion_tokens: tokens written.
        cost: US dollars; ``None`` where no price is known.
    """

    lm_calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None

    def __add__(self, other: Totals) -> Totals:
        known = [cost for cost in (self.cost, other.cost) if cost is not None]
        return Totals(
            self.lm_calls + other.lm_calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            sum(known) if known else None,
        )

    @property
    def tokens(self) -> int:
        """Tokens read and written."""
        return self.prompt_tokens + self.completion_tokens
