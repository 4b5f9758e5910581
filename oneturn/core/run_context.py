"""Cancellation, deadlines and progress of a run, carried in a context variable.

The server sets a context for each request, the adapter sets one with the request's deadline, and each tool call gets
its own. Tools use it through ``oneturn.cancelled()`` and ``oneturn.progress("…")``.
"""

from __future__ import annotations

import contextvars
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

import dspy

from oneturn.core.client_tools import ClientTools
from oneturn.errors import RunCancelled, RunError

OUT_OF_TOKENS = "max_output_tokens"
"""The code of a run that ended because its LM may not write more."""


class OnProgress(Protocol):
    """Callback for progress reports."""

    def __call__(self, message: str, fraction: float | None, item: Mapping[str, Any] | None = None) -> object: ...


LM_SETTINGS = frozenset({"temperature", "top_p", "max_output_tokens"})
"""The names of the request's settings of LM calls. A program that supports them lists them in ``request_settings``."""


@dataclass(frozen=True)
class LMSettings:
    """Settings of a run's LM calls, from its request; ``None`` for the LM's own.

    Attributes:
        temperature: the sampling temperature.
        top_p: the nucleus sampling parameter.
        max_output_tokens: the number of tokens that all LM calls of the run may write.
    """

    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int | None = None

    def config(self, output_tokens: int) -> dict[str, Any]:
        """Return the settings of the next LM call, by the names of ``dspy.LM``.

        Args:
            output_tokens: the tokens that the run's LM calls have written so far.

        Raises:
            RunError: they are as many as the run may write.
        """
        settings: dict[str, Any] = {"temperature": self.temperature, "top_p": self.top_p}
        if self.max_output_tokens is not None:
            settings["max_tokens"] = self.max_output_tokens - output_tokens
            if settings["max_tokens"] <= 0:
                raise RunError(f"The run has written max_output_tokens ({self.max_output_tokens}).", OUT_OF_TOKENS)
        return {name: value for name, value in settings.items() if value is not None}


def call_settings(settings: Mapping[str, Any], lm: Any) -> dict[str, Any]:
    """Return the settings of one call by the names that the LM's own settings have.

    ``dspy.LM`` keeps the token limit of OpenAI's reasoning models as ``max_completion_tokens``; a request with both
    names is refused.
    """
    renamed = {"max_tokens": "max_completion_tokens"} if "max_completion_tokens" in lm.kwargs else {}
    return {renamed.get(name, name): value for name, value in settings.items()}


class RunContext:
    """Cancellation state, deadline and progress callback of a run or a tool call.

    A run has to stop when it is cancelled, when its deadline passes, or when its parent has to stop.

    Args:
        seconds: time limit; ``None`` for no limit besides the parent's.
        parent: the context of the enclosing run.
        on_progress: called with each progress report.
        streaming: whether the output is consumed as a stream; ``None`` inherits from the parent.
        caller: the token of the calling user, empty for no user; ``None`` inherits from the parent.

    Attributes:
        lm_settings: the settings of the run's own LM calls; those inside its tools have none.
        max_tool_calls: the number of calls of its own tools that the run may make; ``None`` for no limit.
        parallel_tool_calls: whether the run may make several calls in one step.
        client_tools: the tools that the client offers; the tools of the run itself aren't offered them.
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
        self.lm_settings = LMSettings()
        self.max_tool_calls: int | None = None
        self.parallel_tool_calls = True
        self.client_tools = ClientTools()
        self.caller: str | None = parent.caller if caller is None and parent else caller

    def cancel(self, reason: str = "cancelled") -> None:
        """Request cancellation. Thread-safe; only the first reason is stored."""
        with self._lock:
            if self._reason is not None:
                return
            self._reason = reason
            wakers = list(self._wakers)
        for wake in wakers:
            wake()

    @property
    def reason(self) -> str | None:
        """Why the run has to stop: ``"deadline_exceeded"`` or the reason passed to ``cancel``; ``None`` if not."""
        if self._reason is not None:
            return self._reason
        if self._ends is not None and time.monotonic() >= self._ends:
            return "deadline_exceeded"
        return self._parent.reason if self._parent is not None else None

    def remaining(self) -> float | None:
        """Seconds until the deadline, 0 if it has passed; ``None`` without a deadline."""
        own = None if self._ends is None else max(0.0, self._ends - time.monotonic())
        inherited = self._parent.remaining() if self._parent is not None else None
        return min((limit for limit in (own, inherited) if limit is not None), default=None)

    def check(self) -> None:
        """Raise ``RunCancelled`` if the run has to stop."""
        if (reason := self.reason) is not None:
            raise RunCancelled(reason)

    @property
    def interruptible(self) -> bool:
        """Whether ``cancel`` would end the wait that the run is in."""
        return bool(self._wakers)

    @contextmanager
    def waking(self, wake: Callable[[], object]) -> Iterator[None]:
        """Call ``wake`` if the run is cancelled inside the block, to interrupt a blocking wait."""
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
        """Make this the current run context inside the block, in the threads of ``dspy.Parallel`` as well."""
        token = _current.set(self)
        try:
            with dspy.context(**{_SETTING: self}):
                yield
        finally:
            _current.reset(token)


_SETTING = "oneturn_run_context"  # dspy.Parallel copies DSPy's settings to its threads, but no context variables
_current: contextvars.ContextVar[RunContext | None] = contextvars.ContextVar("oneturn_control", default=None)


def current_run() -> RunContext:
    """Return the current run context; outside a run, a new one without limits."""
    return _current.get() or dspy.settings.get(_SETTING) or RunContext()


def cancelled() -> bool:
    """Whether a tool should stop: the client disconnected, the deadline passed, or the server is shutting down."""
    return current_run().reason is not None


def progress(message: str, fraction: float | None = None) -> None:
    """Report a tool's progress; the client receives it in the stream.

    Args:
        message: the current activity, in a few words.
        fraction: the completed fraction, 0 to 1, if known.

    Raises:
        RunCancelled: the run has to stop; let it propagate to end the tool.
    """
    report(message, fraction)


def report(message: str, fraction: float | None = None, item: Mapping[str, Any] | None = None) -> None:
    """Report progress like :func:`progress`, with a finished item of the Responses protocol from an agent tool.

    Raises:
        RunCancelled: the run has to stop.
    """
    control = current_run()
    control.check()
    if control.on_progress is not None:
        control.on_progress(message, fraction, item)


def pause(seconds: float) -> None:
    """Sleep until the time is up or the run has to stop.

    Raises:
        RunCancelled: the run was cancelled, or its deadline passed.
    """
    control, stopped = current_run(), threading.Event()
    with control.waking(stopped.set):
        remaining = control.remaining()
        stopped.wait(seconds if remaining is None else min(seconds, remaining))
    control.check()


def shut_down(connection: socket.socket) -> None:
    """Shut a socket down from another thread, to be registered with ``waking``; a blocked read gets end of file."""
    with suppress(OSError):  # already closed
        # The plain socket's method: a TLS socket's own would make the other thread's read fail in TLS.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


_HEADER = "x-forwarded-access-token"
_SERVER = "mlflow.genai.agent_server.utils"


def caller_token() -> str:
    """Return the token of the user whose request is being answered; empty if the platform forwards none.

    A run and its nested runs use the token stored at the start: the platform may forward another user's by now.
    """
    caller = current_run().caller
    return _forwarded_token() if caller is None else caller


def _forwarded_token() -> str:
    server = sys.modules.get(_SERVER)  # imported if MLflow's server is in use
    forwarded = server.get_request_headers().get(_HEADER) if server is not None else None
    return forwarded or threading.main_thread().__dict__.get("invokers_token") or ""
