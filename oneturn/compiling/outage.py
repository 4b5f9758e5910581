"""An LM that can't be asked any more ends a compile: what it didn't say isn't the program's failure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dspy
from dspy.utils.callback import BaseCallback
from dspy.utils.exceptions import (
    LMAuthError,
    LMBillingError,
    LMConfigurationError,
    LMRateLimitError,
    LMTransportError,
    LMUnsupportedModelError,
)

_OUTAGES = (
    LMAuthError,
    LMBillingError,
    LMConfigurationError,
    LMRateLimitError,
    LMTransportError,
    LMUnsupportedModelError,
)


class LMGone(BaseException):
    """The LM can't be asked any more, whatever the request.

    Not an ``Exception``: an optimizer must not take it for an example that failed.
    """


class _Watcher(BaseCallback):
    """Sees each LM call that failed for good, after DSPy's own retries."""

    def on_lm_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        if isinstance(exception, _OUTAGES):
            raise LMGone(str(exception).partition("\n")[0]) from exception


@contextmanager
def outages_raised() -> Iterator[None]:
    """In the block, an LM that can't be asked any more raises :class:`LMGone`."""
    with dspy.context(callbacks=[*dspy.settings.callbacks, _Watcher()]):
        yield
