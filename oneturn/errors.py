"""Every error that oneturn raises on purpose.

    OneTurnError
    ├── ConfigError        a configuration value is missing, unknown or of the wrong type
    ├── DataError          an example, passage or record can't be used; names file, line and reason
    ├── WeightsError       the embedded LM's weights could not be had, or are not what they should be
    ├── LocalLMError       the embedded LM did not start, or can't run here
    ├── ProgramError       a program or its compiled state can't be used
    ├── RunError           a run of the program ended without an answer; carries its trajectory
    ├── RunCancelled       a run was stopped from outside, or its time was over
    ├── ToolError          raised by a tool: its message is what the LM, and the client, read
    ├── DeployError        what was to be deployed didn't start, or can't be; says why
    ├── RequestError       a request can't be turned into the program's inputs
    ├── EndpointError      a remote endpoint answered with an error, or couldn't be asked
    └── AgentError         the error of a served agent, as its own client reads it

Each message says what was wrong, with the value, and what to do about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class PartialReply(Protocol):
    """What had come of a reply before its stream failed; :class:`oneturn.responses.reply.Reply` is one."""

    @property
    def text(self) -> str:
        """The text that had come."""
        ...


class OneTurnError(Exception):
    """Base of all errors raised by oneturn: catch this to catch them all."""


class ConfigError(OneTurnError):
    """A configuration value is missing, unknown or of the wrong type."""


class DataError(OneTurnError):
    """An example, passage or record can't be used; the message names file, line and reason.

    Args:
        message: what was wrong and what to do about it.
        problems: the place (``"line 3"``) and the reason of each bad row, where rows of one file are bad.
    """

    def __init__(self, message: str, problems: Sequence[tuple[str, str]] = ()):
        super().__init__(message)
        self.problems = tuple(problems)


class WeightsError(OneTurnError):
    """The embedded LM's weights could not be had, or are not what their SHA-256 says."""


class LocalLMError(OneTurnError):
    """The embedded LM did not start, or can't run on this machine."""


class LMUnavailableError(OneTurnError):
    """An LM can't be asked, whatever the request: no connection, or a key or a quota that doesn't hold."""


class ProgramError(OneTurnError):
    """A program, or its compiled state, can't be used as asked."""


class RunError(OneTurnError):
    """A run ended without an answer; ``code`` says how, ``trajectory`` keeps what had been done.

    Args:
        message: what happened and what to do about it.
        code: ``"invalid_output"``, ``"context_length_exceeded"`` or ``"max_iters"``.
        trajectory: the turns that were finished before.
    """

    def __init__(self, message: str, code: str, trajectory: Sequence[object] = ()):
        super().__init__(message)
        self.code = code
        self.trajectory = list(trajectory)


class RunCancelled(OneTurnError):
    """A run was stopped from outside, or its time was over.

    Args:
        reason: ``"deadline_exceeded"``, ``"client_gone"``, ``"shutting_down"`` or what the canceller said.
    """

    def __init__(self, reason: str):
        super().__init__(f"The run was stopped: {reason}.")
        self.reason = reason


class ToolError(OneTurnError):
    """Raise it in a tool to tell the LM what went wrong and what to do instead, in one line."""


class RequestError(OneTurnError):
    """A request can't be turned into the program's inputs."""


class DeployError(OneTurnError):
    """What was to be deployed can't be, or didn't start; the message tells the cause that Databricks gives."""


class EndpointError(OneTurnError):
    """A remote endpoint answered with an error; ``code`` is the machine-readable reason.

    What it says is the endpoint's, and may hold anything: a served agent doesn't pass it on as it came.

    Args:
        message: what the endpoint said.
        code: its error code, such as ``"server_error"``.
        status: the HTTP status, or ``None`` when the error came inside a stream.
        retry_after: seconds to wait before another try, where the endpoint says so.
        partial: what had come before, where the error came inside a stream.
    """

    def __init__(
        self,
        message: str,
        code: str = "server_error",
        status: int | None = None,
        retry_after: float | None = None,
        partial: PartialReply | None = None,
    ):
        super().__init__(message)
        self.code = code
        self.status = status
        self.retry_after = retry_after
        self.partial = partial


class AgentError(OneTurnError):
    """The error of a served agent, as its own client reads it; ``ResponsesAdapter.predict`` raises it.

    Args:
        message: without traceback, path or secret.
        code: the error code, such as ``"server_error"``.
        status: the HTTP status.
        retry_after: seconds to wait before another try, where that is known.
    """

    def __init__(
        self, message: str, code: str = "server_error", status: int | None = None, retry_after: float | None = None
    ):
        super().__init__(message)
        self.code = code
        self.status = status
        self.retry_after = retry_after
