"""What may be raised, by an LM, by a tool, by a program: what is foreseen, and what nobody foresees."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dspy.lm15 import AuthError, ContextLengthError, RateLimitError, ServerError, TimeoutError
from hypothesis import strategies as st

from oneturn.errors import AgentError, EndpointError, RequestError, RunCancelled, RunError, ToolError

SECRET = "sk-d0N0tT3ll4711aBcDeFgH"


class Unreadable(Exception):
    """Its text can't be had."""

    def __str__(self) -> str:
        raise RuntimeError(SECRET)


class Nameless(BaseException):
    """Not an ``Exception``: what catches all errors doesn't catch it."""


FORESEEN: tuple[Callable[[], BaseException], ...] = (
    lambda: RateLimitError(SECRET, retry_after=2.0),
    lambda: AuthError(SECRET),
    lambda: ContextLengthError(SECRET),
    lambda: ServerError(SECRET),
    lambda: TimeoutError(SECRET),
    lambda: RuntimeError(SECRET),
    lambda: ValueError("wrong\nvalue"),
    lambda: KeyError("word"),
    lambda: ToolError("take another word"),
    lambda: RunError("no answer", "max_iters"),
    lambda: RunCancelled("enough"),
    lambda: EndpointError(f"no {SECRET}", "rate_limit_exceeded", 429),
    lambda: AgentError("busy", "rate_limit_exceeded", 429),
    lambda: RequestError("no such thing"),
)
ODD: tuple[Callable[[], BaseException], ...] = (
    lambda: StopIteration(SECRET),
    lambda: StopAsyncIteration(),
    lambda: RecursionError(SECRET),
    lambda: MemoryError(),
    lambda: AssertionError(),
    lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"),
    lambda: ValueError("half a pair: \ud800"),
    lambda: Unreadable(),
    lambda: SystemExit(3),
    lambda: GeneratorExit(),
    lambda: asyncio.CancelledError(),
)
errors = st.sampled_from([*FORESEEN, *ODD])
