"""Exceptions raised by oneturn.

    OneTurnError
    ├── ConfigError        a configuration value is missing, unknown or of the wrong type
    ├── DataError          an example, passage or record is invalid; names file, line and reason
    ├── WeightsError       the embedded LM's weights are unavailable, or their checksum is wrong
    ├── LocalLMError       the embedded LM did not start, or can't run on this machine
    ├── LMUnavailableError an LM can't be reached, or rejects the API key or quota
    ├── ProgramError       a program or its compiled state can't be used
    ├── RunError           a run ended without an answer; carries its trajectory
    │   └── ApprovalRequired   it needs a person's approval of a tool call, and there is nobody to ask
    ├── RunCancelled       a run was cancelled, or its deadline passed
    ├── ToolError          raised by a tool; the LM and the client read its message
    ├── DeployError        a deployment failed or isn't possible; gives the cause
    ├── RequestError       a request can't be converted to the program's inputs
    ├── EndpointError      a remote endpoint returned an error, or couldn't be reached
    └── AgentError         the error that a served agent returns to its client

Each message names the problem, the value and the fix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol


class PartialReply(Protocol):
    """The part of a reply received before its stream failed, such as a :class:`oneturn.responses.reply.Reply`."""

    @property
    def text(self) -> str:
        """The text received so far."""
        ...


class OneTurnError(Exception):
    """Base class of all exceptions raised by oneturn."""


class ConfigError(OneTurnError):
    """A configuration value is missing, unknown or of the wrong type."""


class DataError(OneTurnError):
    """An example, passage or record is invalid; the message names file, line and reason.

    Args:
        message: the problem and its fix.
        problems: place (``"line 3"``) and reason of each invalid row, if rows of one file are invalid.
    """

    def __init__(self, message: str, problems: Sequence[tuple[str, str]] = ()):
        super().__init__(message)
        self.problems = tuple(problems)


class WeightsError(OneTurnError):
    """The embedded LM's weights are unavailable, or don't match their SHA-256."""


class LocalLMError(OneTurnError):
    """The embedded LM did not start, or can't run on this machine."""


class LMUnavailableError(OneTurnError):
    """An LM rejects every request: no connection, an invalid API key or an exhausted quota."""


class ProgramError(OneTurnError):
    """A program, or its compiled state, can't be used."""


class RunError(OneTurnError):
    """A run ended without an answer.

    Args:
        message: the problem and its fix.
        code: ``"invalid_output"``, ``"context_length_exceeded"``, ``"max_iters"``, ``"approval_required"``,
            ``"max_output_tokens"`` (the reply was cut), ``"content_filter"`` or ``"refusal"``.
        trajectory: the turns finished before the error.
    """

    def __init__(self, message: str, code: str, trajectory: Sequence[object] = ()):
        super().__init__(message)
        self.code = code
        self.trajectory = list(trajectory)


class ApprovalRequired(RunError):
    """A run ended at a tool call that needs a person's approval. The call wasn't made.

    Args:
        name: the tool.
        arguments: the call's arguments.
        trajectory: the turns finished before.
    """

    def __init__(self, name: str, arguments: Mapping[str, object], trajectory: Sequence[object] = ()):
        super().__init__(
            f"The run ended without an answer: {name} needs a person's approval, and there is nobody to ask. Serve the "
            "program with oneturn.ResponsesAdapter, evaluate and compile it with an approval policy, or give it a tool "
            "that needs none for this purpose.",
            "approval_required",
            trajectory,
        )
        self.name = name
        self.arguments = dict(arguments)


class RunCancelled(OneTurnError):
    """A run was cancelled, or its deadline passed.

    Args:
        reason: ``"deadline_exceeded"``, ``"client_gone"``, ``"shutting_down"`` or the reason given to ``cancel``.
    """

    def __init__(self, reason: str):
        super().__init__(f"The run was stopped: {reason}.")
        self.reason = reason


class ToolError(OneTurnError):
    """Raised by a tool: one line for the LM that gives the problem and an alternative."""


class RequestError(OneTurnError):
    """A request can't be converted to the program's inputs.

    Args:
        message: the problem and its fix.
        param: the field of the request that is wrong, if it is one.
    """

    def __init__(self, message: str, param: str | None = None):
        super().__init__(message)
        self.param = param


class DeployError(OneTurnError):
    """A deployment failed or isn't possible; the message includes the cause reported by Databricks."""


class EndpointError(OneTurnError):
    """A remote endpoint returned an error, or couldn't be reached.

    The message comes from the endpoint and is untrusted: a served agent doesn't forward it unchanged.

    Args:
        message: the endpoint's error message.
        code: the endpoint's error code, such as ``"server_error"``.
        status: the HTTP status; inside a stream that of the error object, 429 or 503 for an endpoint that is busy, and
            ``None`` if neither says it.
        retry_after: seconds to wait before a retry, if the endpoint gives them.
        partial: the reply received before the error, if the error came inside a stream.
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
    """The error that a served agent returns to its client; raised by ``ResponsesAdapter.predict``.

    Args:
        message: the error message, without traceback, paths or secrets.
        code: the error code, such as ``"server_error"``.
        status: the HTTP status.
        retry_after: seconds to wait before a retry, if known.
        param: the field of the request that is wrong, if it is one.
        retryable: whether the same request may succeed later.
    """

    def __init__(
        self,
        message: str,
        code: str = "server_error",
        status: int | None = None,
        retry_after: float | None = None,
        param: str | None = None,
        retryable: bool = False,
    ):
        super().__init__(message)
        self.code = code
        self.status = status
        self.retry_after = retry_after
        self.param = param
        self.retryable = retryable
