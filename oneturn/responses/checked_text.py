"""The text of an answer that is streamed: all that the LM writes, or only what nothing can replace any more."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from oneturn.core.background import KEEP_ALIVE
from oneturn.core.steps import AnswerDelta
from oneturn.errors import ProgramError

StreamOption = Literal["checked", "eager"]


def check_stream_option(value: str) -> StreamOption:
    """Return the option.

    Raises:
        ProgramError: there is no such option.
    """
    options: tuple[StreamOption, ...] = ("checked", "eager")
    for option in options:
        if option == value:
            return option
    raise ProgramError(f"stream is {value!r}; it must be 'checked' or 'eager'.")


class CheckedText:
    """Passes on the chunks of an answer, and holds back those that aren't checked.

    Args:
        option: ``"checked"``, or ``"eager"`` to hold nothing back.
    """

    def __init__(self, option: StreamOption):
        self._option = option
        self._held: AnswerDelta | None = None
        self._last_sign = time.monotonic()

    def add(self, delta: AnswerDelta) -> Iterator[AnswerDelta]:
        """Yield the chunk, with the text held back before it; nothing if it isn't checked.

        The text of an earlier attempt is dropped.
        """
        if self._held is not None and self._held.attempt == delta.attempt:
            delta = replace(delta, text=self._held.text + delta.text)
        self._held = None if delta.checked or self._option == "eager" else delta
        if self._held is None:
            yield delta

    def rest(self) -> Iterator[AnswerDelta]:
        """Yield the text held back, for a run that ends before it is checked."""
        if self._held is not None:
            yield self._held

    def needs_sign(self) -> bool:
        """Return whether text has been held back for so long that the client needs a sign of life."""
        silent = self._held is not None and time.monotonic() - self._last_sign >= KEEP_ALIVE
        if silent or self._held is None:
            self._last_sign = time.monotonic()
        return silent
