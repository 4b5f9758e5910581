"""HTTP for LM calls that a cancelled run interrupts: its connection is closed, its wait for a retry ends.

DSPy's calls block their thread until a byte arrives, for minutes if an LM thinks or hangs. Importing ``oneturn.lm``
makes every ``dspy.LM`` of the process use this transport, those of users' modules and tools included. Outside a run it
behaves as DSPy's own.
"""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack

from oneturn.core._dspy_client import ObservedTransport, RequestObserver, use_for_all_lms
from oneturn.core.background import ConsumerGone
from oneturn.core.run_context import RunContext, current_run, pause, shut_down
from oneturn.errors import RunCancelled


class InterruptibleTransport(ObservedTransport):
    """DSPy's HTTP transport. If the run that sends a request is cancelled, the request's connection is closed.

    Opening a connection isn't interrupted: it ends after the transport's ``connect_timeout``, 10 seconds by default.

    ``stream`` and the iteration of its response raise ``ConsumerGone`` if the run was cancelled or its deadline passed;
    DSPy neither retries nor wraps it.
    """

    def observer(self) -> RequestObserver:
        """Return what closes the connection of a request if the current run is cancelled."""
        return Interruption(current_run())


class Interruption(RequestObserver):
    """Shuts down the socket of one request if the run that waits for it is cancelled.

    Args:
        run: the run.
    """

    def __init__(self, run: RunContext):
        self._run = run
        self._socket: socket.socket | None = None
        self._registered = ExitStack()
        self._lock = threading.Lock()

    def attach(self, connection: socket.socket) -> None:
        """Shut this socket down from now on. Raises ``ConsumerGone`` if the run was cancelled before."""
        self.detach()  # a reused connection was closed by its server, and the request is sent on a new one
        self._socket = connection
        self._registered.enter_context(self._run.waking(self._shut_down))
        self.check(None)

    def detach(self) -> None:
        """Shut no socket down from now on."""
        with self._lock:
            self._socket = None
        self._registered.close()

    def check(self, error: Exception | None) -> None:
        """Raise ``ConsumerGone`` if the run was cancelled: the connection failed because it was shut down."""
        if self._run.reason is not None:
            raise ConsumerGone from error

    def _shut_down(self) -> None:
        with self._lock:
            if self._socket is not None:
                shut_down(self._socket)


def wait_for_retry(seconds: float) -> None:
    """Sleep before DSPy repeats an LM call.

    Raises:
        ConsumerGone: the run was cancelled, or its deadline passed.
    """
    try:
        pause(seconds)
    except RunCancelled as error:
        raise ConsumerGone from error


use_for_all_lms(InterruptibleTransport, wait_for_retry)
