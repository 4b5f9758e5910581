"""Why an LM call failed, for the operator: the provider's message, and the environment variables that aren't set."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dspy
from dspy.utils.callback import BaseCallback

from oneturn.core._dspy import key_variables
from oneturn.core.secrets import redact
from oneturn.errors import EndpointError, LMUnavailableError
from oneturn.lm.reply_ending import ReplyCheck
from oneturn.lm.streaming import StreamingEngine


class _LastFailure(BaseCallback):
    """Keeps the last LM that was called, and its exception if the call failed."""

    def __init__(self) -> None:
        self.lm: Any = None
        self.error: BaseException | None = None

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        self.lm = instance

    def on_lm_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        self.error = exception


@contextmanager
def explained_failures() -> Iterator[None]:
    """In the block, a run in this process that ends because of its LM says why, as its operator needs it.

    A client of a server doesn't see it: the provider's message may name accounts and addresses.

    Raises:
        LMUnavailableError: the run ended because of its LM.
    """
    last = _LastFailure()
    with dspy.context(callbacks=[*dspy.settings.callbacks, last]):
        try:
            yield
        except EndpointError as error:
            if last.error is None or not error.code.startswith("lm_"):
                raise
            raise LMUnavailableError(describe_failure(last.error, last.lm)) from last.error


def describe_failure(error: BaseException, lm: dspy.BaseLM) -> str:
    """Describe the failure of an LM call in a line: the first line of the provider's message, and the missing keys."""
    line = next(iter(redact(str(error)).strip().splitlines()), "") or type(error).__name__
    for name in (lm.model, lm.model.partition("/")[2]):  # LiteLLM's errors lack the provider
        line = line.removeprefix(f"[{name}] ")
    missing = [name for name in key_variables(_unwrapped(lm)) if name not in line and not os.environ.get(name)]
    verb = "isn't" if len(missing) == 1 else "aren't"
    fix = f" {' and '.join(missing)} {verb} set in the environment." if missing else ""
    return f"The LM {lm.model} can't be used: {line.rstrip('.')}.{fix}"


def _unwrapped(lm: Any) -> Any:
    """The LM whose engine a program has wrapped to stream it, or to check its replies."""
    while isinstance(engine := getattr(lm, "engine", None), ReplyCheck | StreamingEngine):
        lm = engine.lm
    return lm
