"""Usage of LM calls: how many, their tokens and their cost, and the tracker that counts them."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields, replace
from typing import Any

import dspy
from dspy.lm15 import Message, Response, TextPart
from dspy.lm15 import Usage as ResponseUsage

from oneturn.core._dspy import UsageTracker, estimate_cost, has_price_list, price_namespaces


@dataclass(frozen=True)
class Usage:
    """Usage of LM calls. Usages are added with ``+``, or with ``sum(usages, NO_USAGE)``.

    Attributes:
        lm_calls: number of LM calls answered. Answers from DSPy's cache are free and aren't counted.
        input_tokens: number of input tokens, cached ones included.
        output_tokens: number of output tokens, reasoning included.
        cached_tokens: number of input tokens that the LM read from its prompt cache; 0 if it reports none.
        cache_write_tokens: number of input tokens that the LM wrote to its prompt cache; 0 if it reports none.
        reasoning_tokens: number of output tokens spent on reasoning; 0 if the LM reports none.
        cost: cost in US dollars; ``None`` if the price of any of the calls is unknown.
    """

    lm_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cost: float | None = None

    def __add__(self, other: Usage) -> Usage:
        cost = None if self.cost is None or other.cost is None else self.cost + other.cost
        counts: list[int] = [getattr(self, name) + getattr(other, name) for name in _COUNTS]
        return replace(Usage(*counts), cost=cost)

    @property
    def tokens(self) -> int:
        """Number of input and output tokens."""
        return self.input_tokens + self.output_tokens

    @classmethod
    def from_dspy(cls, entry: Mapping[str, Any], model: str | None = None) -> Usage:
        """Read the usage of one LM call in DSPy's format, which is that of the Chat Completions API.

        Args:
            entry: the usage, such as ``lm.history[-1]["usage"]``, or the result of :meth:`to_dspy`. An LM with
                ``model_type="responses"`` may report it in the format of the Responses API.
            model: the LM's model string. It prices an entry that doesn't contain its ``cost``.
        """
        calls = _count(entry, "lm_calls") if "lm_calls" in entry else 1
        prefixes = ("input", "output") if "input_tokens" in entry else ("prompt", "completion")
        usage = cls(calls, *_token_counts(entry, *prefixes))
        cost = entry.get("cost")
        if not isinstance(cost, int | float):
            cost = _cost(model, usage) if model is not None else None
        return replace(usage, cost=cost)

    @classmethod
    def from_responses(cls, fields: Mapping[str, Any] | None) -> Usage:
        """Read a ``usage`` object of the Responses API, which contains neither the number of LM calls nor the cost."""
        return cls(0, *_token_counts(fields or {}, "input", "output"))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Usage:
        """Read the result of :meth:`to_dict`.

        Raises:
            KeyError: a key is missing.
        """
        return cls(*(values[name] for name in USAGE_COLUMNS))

    def to_dspy(self) -> dict[str, Any]:
        """Return the usage as one entry for a DSPy usage tracker, with the number of LM calls and the cost."""
        return {
            "prompt_tokens": self.input_tokens,
            "prompt_tokens_details": {
                "cached_tokens": self.cached_tokens,
                "cache_creation_tokens": self.cache_write_tokens,
            },
            "completion_tokens": self.output_tokens,
            "completion_tokens_details": {"reasoning_tokens": self.reasoning_tokens},
            "total_tokens": self.tokens,
            "lm_calls": self.lm_calls,
            "cost": self.cost,
        }

    def to_responses(self) -> dict[str, Any]:
        """Return the ``usage`` object of the Responses API."""
        return {
            "input_tokens": self.input_tokens,
            "input_tokens_details": {
                "cached_tokens": self.cached_tokens,
                "cache_write_tokens": self.cache_write_tokens,
            },
            "output_tokens": self.output_tokens,
            "output_tokens_details": {"reasoning_tokens": self.reasoning_tokens},
            "total_tokens": self.tokens,
        }

    def to_dict(self) -> dict[str, int | float | None]:
        """Return a flat dict with the keys ``USAGE_COLUMNS``, for evaluation rows, journals and manifests."""
        return dict(zip(USAGE_COLUMNS, astuple(self), strict=True))


_COUNTS = tuple(field.name for field in fields(Usage) if field.name != "cost")

USAGE_COLUMNS = (
    "lm_calls",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "cost",
)
"""The keys of :meth:`Usage.to_dict`, in the order of the fields."""

NO_USAGE = Usage(cost=0.0)
"""The usage of no LM call, which costs nothing. The cost of ``Usage()`` is unknown."""


def _token_counts(fields: Mapping[str, Any], inputs: str, outputs: str) -> tuple[int, ...]:
    """Return the token counts in a usage object, in the order of the fields of :class:`Usage`."""
    read, written = _count(fields, f"{inputs}_tokens"), _count(fields, f"{outputs}_tokens")
    input_details, output_details = (fields.get(f"{prefix}_tokens_details") for prefix in (inputs, outputs))
    cached = _count(input_details, "cached_tokens")
    cache_write = _count(input_details, "cache_write_tokens") or _count(input_details, "cache_creation_tokens")
    reasoning = _count(output_details, "reasoning_tokens")
    if cached + cache_write > read:  # the LM counts them apart from the input, as Anthropic does
        read += cached + cache_write
    if reasoning > written:  # the LM counts it apart from the output, as Gemini does
        written += reasoning
    return read, written, cached, cache_write, reasoning


def _count(fields: Any, name: str) -> int:
    """Return a whole number; 0 if there is none, because other servers may report anything."""
    value = fields.get(name) if isinstance(fields, Mapping) else None
    return int(value) if isinstance(value, int | float) and float(value).is_integer() else 0


def _cost(model: str, usage: Usage) -> float | None:
    """Return the cost in US dollars by DSPy's prices for short prompts; ``None`` if a price is unknown.

    DSPy loads its price list, over the network if allowed, when it prices a call itself. It doesn't for an LM without
    a price, and neither does this.
    """
    prices = _prices(model) if has_price_list() else None
    if prices is None:
        return None
    counts = (
        usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens,
        usage.cached_tokens,
        usage.cache_write_tokens,
        usage.output_tokens - usage.reasoning_tokens,
        usage.reasoning_tokens,
    )
    return sum(count * price for count, price in zip(counts, prices, strict=True))


@functools.cache
def _prices(model: str) -> tuple[float, ...] | None:
    """Return the price in US dollars of a token: of input, cached, written to the cache, of output, of reasoning.

    A kind without a price of its own has that of input or output. ``None`` if there is no price at all.
    """
    provider, _, name = model.partition("/")
    if not name:  # an LM class of the user's own, or an agent that is a tool
        return None
    message = Message.assistant(TextPart("-"))  # prices depend on token counts, not on content

    def price(provider: str, namespaces: tuple[str, ...] | None, **tokens: int) -> float | None:
        usage = ResponseUsage(**{"input_tokens": 0, "output_tokens": 0, **tokens})
        response = Response(id=None, model=name, message=message, finish_reason="stop", usage=usage)
        cost, _ = estimate_cost(response, provider=provider, requested_model=name, namespaces=namespaces)
        return None if cost is None else cost / 1000

    # DSPy's usage entries count as OpenAI does: cached tokens are part of the input, reasoning of the output.
    openai = functools.partial(price, "openai", price_namespaces(provider))
    prices = [
        price(provider, None, input_tokens=1000),
        openai(input_tokens=1000, cache_read_tokens=1000),
        openai(input_tokens=1000, cache_write_tokens=1000),
        price(provider, None, output_tokens=1000),
        openai(output_tokens=1000, reasoning_tokens=1000),
    ]
    known = tuple(price for price in prices if price is not None)
    return known if len(known) == len(prices) else None


class CallTracker(UsageTracker):
    """A DSPy usage tracker that also counts calls whose LM reports no tokens. All threads share it.

    Attributes:
        replayed: seconds that replies replayed from a journal took originally.
    """

    def __init__(self) -> None:
        super().__init__()
        self.replayed = 0.0

    def __deepcopy__(self, memo: dict[int, Any]) -> CallTracker:
        """Share the tracker: DSPy gives each thread a copy and discards it."""
        return self

    def add_usage(self, lm: str, usage_entry: dict[str, Any]) -> None:
        """Add the usage of one LM call, in DSPy's format; it may be empty."""
        super().add_usage(lm, usage_entry or {"lm_calls": 1})

    @property
    def usage(self) -> Usage:
        """The usage so far; other threads may still be counting."""
        entries = [(model, entry) for model, calls in list(self.usage_data.items()) for entry in list(calls)]
        return sum((Usage.from_dspy(entry, model) for model, entry in entries), NO_USAGE)


@contextmanager
def track_usage(tracker: CallTracker | None = None) -> Iterator[CallTracker]:
    """Count the LM calls of the block in ``tracker``, or a new one. At its end, the enclosing tracker gets them too."""
    tracker = CallTracker() if tracker is None else tracker
    outer = dspy.settings.usage_tracker
    try:
        with dspy.context(usage_tracker=tracker):
            yield tracker
    finally:
        if outer is not None:
            for model, entries in list(tracker.usage_data.items()):
                outer.usage_data[model].extend(entries)
        if isinstance(outer, CallTracker):
            outer.replayed += tracker.replayed


def note_replayed(seconds: float) -> None:
    """Add the original duration of a replayed reply to the current tracker."""
    tracker = dspy.settings.usage_tracker
    if isinstance(tracker, CallTracker):
        tracker.replayed += seconds
