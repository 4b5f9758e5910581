"""A failure as what a client may read: a code and a message without traceback, path or secret."""

from __future__ import annotations

import mlflow
from dspy.utils.exceptions import (
    AdapterParseError,
    ContextWindowExceededError,
    LMAuthError,
    LMBillingError,
    LMConfigurationError,
    LMError,
    LMRateLimitError,
    LMTimeoutError,
)

from oneturn.errors import AgentError, EndpointError, RequestError, RunError
from oneturn.tools.errors import redacted_line

_UNUSABLE = "The agent can't use its language model ({name}); whoever runs the agent has to see to it."
_LM_FAILURES: tuple[tuple[type[Exception], str, str], ...] = (
    (LMRateLimitError, "rate_limit_exceeded", "The language model has too much to do. Wait, then ask again."),
    (LMTimeoutError, "lm_timeout", "The language model didn't answer in time. Ask again."),
    (LMAuthError, "lm_unusable", _UNUSABLE),
    (LMBillingError, "lm_unusable", _UNUSABLE),
    (LMConfigurationError, "lm_unusable", _UNUSABLE),
    (ContextWindowExceededError, "context_length_exceeded", "The request is too long for the language model."),
    (AdapterParseError, "invalid_output", "The language model's reply couldn't be read. Ask again."),
    (LMError, "lm_error", "The language model could not be asked ({name}). Try again later."),
)
_STATUS = {
    "invalid_request": 400,
    "context_length_exceeded": 400,
    "rate_limit_exceeded": 429,
    "lm_timeout": 504,
    "lm_unusable": 502,
    "lm_error": 502,
    "upstream_error": 502,
    "invalid_output": 502,
}


def to_client_error(error: BaseException) -> AgentError:
    """The error as a client may know it: with its code, message and HTTP status.

    Only the messages of failed runs and refused requests are passed on: they are written for whoever asks. Others are
    written for whoever runs the agent, and may name its files. The message of a remote endpoint is
    redacted, and its status isn't passed on. All of it goes into the trace, if there is one.
    """
    span = mlflow.get_current_active_span()
    if span is not None:
        span.record_exception(_recordable(error))
    if isinstance(error, AgentError):
        return error
    code, message = _code_and_message(error)
    after = getattr(error, "retry_after", None)
    return AgentError(message, code, _STATUS.get(code, 500), retry_after=after)


def _recordable(error: BaseException) -> Exception | str:
    """The error as a span takes it: one whose own text fails would break the trace."""
    try:
        return error if isinstance(error, Exception) and [str(error)] else repr(error)
    except Exception:
        return type(error).__name__


def _code_and_message(error: BaseException) -> tuple[str, str]:
    if isinstance(error, RunError):
        return error.code, str(error)
    if isinstance(error, RequestError):
        return "invalid_request", str(error)
    if isinstance(error, EndpointError):
        return "upstream_error", f"A service that the agent calls failed: {redacted_line(str(error)) or error.code}"
    for kind, code, message in _LM_FAILURES:
        if isinstance(error, kind):
            return code, message.format(name=type(error).__name__)
    return "server_error", f"The agent failed ({type(error).__name__}); its trace tells more."
