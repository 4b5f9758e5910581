"""When a run has to stop, and what its tools can know of it: cancellation, deadlines, progress.

A run's control is ambient: the server sets one for each request, the adapter one with the request's deadline, and each
tool call gets its own. A tool asks ``oneturn.cancelled()`` and tells ``oneturn.progress("…")``.
"""

from __future__ import annotations

import contextvars
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from oneturn.errors import RunCancelled


class OnProgress(Protocol):
    """Takes what work reports of itself."""

    def __call__(self, message: str, fraction: float | None, item: Mapping[str, Any] | None = None) -> object: ...


class RunContext:
    """Says when a piece of work has to stop: when it is cancelled, when its time is over, or when its parent's is.

    Args:
        seconds: how long it may take; ``None`` for no limit of its own.
        parent: what it is a part of.
        on_progress: told what the work reports of itself.
        streaming: whether somebody reads what is written while it is written; ``None`` for what its parent says.
        caller: the token of the user on whose behalf it is done, empty for nobody's; ``None`` for what its parent says.
    """

    def __init__(
        self,
        seconds: float | None = None,
        parent: RunContext | None = None,
        on_progress: OnProgress | None = None,
        streaming: bool | None = None,
        caller: str | None = None,
    ):
        self._parent = parent
        self.streaming: bool = (parent.streaming if parent else True) if streaming is None else streaming
        self._ends = None if seconds is None else time.monotonic() + seconds
        self._reason: str | None = None
        self._wakers: set[Callable[[], object]] = set()
        self._lock = threading.Lock()
        self.on_progress = on_progress
        self.caller: str | None = parent.caller if caller is None and parent else caller

    def cancel(self, reason: str = "cancelled") -> None:
        """Ask the work to stop; safe from any thread. The first reason holds."""
        with self._lock:
            if self._reason is not None:
                return
            self._reason = reason
            wakers = list(self._wakers)
        for wake in wakers:
            wake()

    @property
    def reason(self) -> str | None:
        """Why it has to stop: ``"deadline_exceeded"``, or what ``cancel`` was told; ``None`` while it may go on."""
        if self._reason is not None:
            return self._reason
        if self._ends is not None and time.monotonic() >= self._ends:
            return "deadline_exceeded"
        return self._parent.reason if self._parent is not None else None

    def remaining(self) -> float | None:
        """Seconds until its time is over, 0 if it is; ``None`` if nothing limits it."""
        own = None if self._ends is None else max(0.0, self._ends - time.monotonic())
        above = self._parent.remaining() if self._parent is not None else None
        return min((limit for limit in (own, above) if limit is not None), default=None)

    def check(self) -> None:
        """Raise ``RunCancelled`` if it has to stop."""
        if (reason := self.reason) is not None:
            raise RunCancelled(reason)

    @contextmanager
    def waking(self, wake: Callable[[], object]) -> Iterator[None]:
        """Call ``wake`` when it is cancelled while the block runs: for whoever waits for something else meanwhile."""
        with self._lock:
            self._wakers.add(wake)
        try:
            if self._parent is None:
                yield
            else:
                with self._parent.waking(wake):
                    yield
        finally:
            with self._lock:
                self._wakers.discard(wake)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make it the one that the block's code finds."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)


_current: contextvars.ContextVar[RunContext | None] = contextvars.ContextVar("oneturn_control", default=None)


def current_run() -> RunContext:
    """The control of the work that calls this; one that never stops it, outside a run."""
    return _current.get() or RunContext()


def cancelled() -> bool:
    """Whether a tool's work is in vain: the client has gone, the time is over, or the server is being stopped."""
    return current_run().reason is not None


def progress(message: str, fraction: float | None = None) -> None:
    """Tell how a tool's work gets on; the client sees it in the stream.

    Args:
        message: what is being done, in a few words.
        fraction: how much of it is done, 0 to 1, if that is known.

    Raises:
        RunCancelled: the work is in vain; a tool that lets this through ends there.
    """
    report(message, fraction)


def report(message: str, fraction: float | None = None, item: Mapping[str, Any] | None = None) -> None:
    """``progress``, with what an agent that is the tool has finished: an item of the Responses protocol.

    Raises:
        RunCancelled: the work is in vain.
    """
    control = current_run()
    control.check()
    if control.on_progress is not None:
        control.on_progress(message, fraction, item)


_HEADER = "x-forwarded-access-token"
_SERVER = "mlflow.genai.agent_server.utils"


def caller_token() -> str:
    """The token of whoever asks the request that is being answered; empty where nobody's is handed over.

    A run keeps the one that it began with, and so do the runs inside it: by now, the platform may hand over another's.
    """
    kept = current_run().caller
    return _handed_over() if kept is None else kept


def _handed_over() -> str:
    server = sys.modules.get(_SERVER)  # who serves by MLflow's server has imported it
    forwarded = server.get_request_headers().get(_HEADER) if server is not None else None
    return forwarded or threading.main_thread().__dict__.get("invokers_token") or ""
