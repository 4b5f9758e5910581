"""What LM calls have cost."""

from __future__ import annotations

from dataclasses import dataclass


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
