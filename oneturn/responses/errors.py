"""Convert exceptions to client errors: a code and a message without traceback, path or secret."""

from __future__ import annotations

import mlflow
from dspy.utils.exceptions import (
    AdapterParseError,
    ContextWindowExceededError,
    LMAuthError,
    LMBillingError,
    LMConfigurationError,
    LMError,
    LMInvalidRequestError,
    LMRateLimitError,
    LMTimeoutError,
    LMUnsupportedFeatureError,
    is_retryable_lm_error,
)

from oneturn.errors import AgentError, EndpointError, RequestError, RunError
from oneturn.tools.errors import redacted_line

_LM_UNUSABLE = "The language model is unusable ({name}); the operator must fix its credentials, billing or settings."
_LM_ERRORS: tuple[tuple[type[Exception], str, str], ...] = (
    (LMRateLimitError, "rate_limit_exceeded", "The language model is rate-limited; retry later."),
    (LMTimeoutError, "lm_timeout", "The language model timed out; retry later."),
    (LMAuthError, "lm_unusable", _LM_UNUSABLE),
    (LMBillingError, "lm_unusable", _LM_UNUSABLE),
    (LMConfigurationError, "lm_unusable", _LM_UNUSABLE),
    (
        ContextWindowExceededError,
        "context_length_exceeded",
        "The request is too long for the language model; shorten it.",
    ),
    (AdapterParseError, "invalid_output", "The language model's reply can't be parsed; retry."),
    (LMInvalidRequestError, "lm_unusable", _LM_UNUSABLE),
    (LMUnsupportedFeatureError, "lm_unusable", _LM_UNUSABLE),
    (LMError, "lm_error", "The call to the language model failed ({name}); retry later."),
)
_NOT_RETRYABLE = 424
"""The status of a failed dependency that a retry can't fix. MLflow's client, which retries 429, 500, 502 and 503 seven
times, and OpenAI's, which retries 5xx twice, would run the agent's tools again."""

_STATUS = {
    "invalid_request": 400,
    "context_length_exceeded": 400,
    "rate_limit_exceeded": 429,
    "lm_timeout": 504,
    "lm_unusable": _NOT_RETRYABLE,
    "lm_error": 502,
    "upstream_error": 502,
    "invalid_output": 500,
    "content_filter": 422,
    "refusal": 422,
}


def to_client_error(error: BaseException) -> AgentError:
    """Convert an exception to the error sent to the client: code, message, HTTP status.

    Messages of failed runs and rejected requests are passed on: they are written for the client. Other messages are
    written for the agent's operator and may contain file paths, so they are replaced. The message of a remote endpoint
    is redacted, and its status is dropped. The active span, if any, records the original exception.

    Args:
        error: the exception that ended the run.

    Returns:
        ``error`` itself if it is an ``AgentError``, otherwise a new one.
    """
    span = mlflow.get_current_active_span()
    if span is not None:
        span.record_exception(_for_span(error))
    if isinstance(error, AgentError):
        return error
    code, message = _code_and_message(error)
    retry_after = getattr(error, "retry_after", None)
    status = _STATUS.get(code, 500) if _is_retryable(error) else _NOT_RETRYABLE
    return AgentError(message, code, status, retry_after=retry_after)


def _is_retryable(error: BaseException) -> bool:
    """Whether a retry may succeed; ``True`` for errors whose code alone tells it."""
    if isinstance(error, EndpointError):
        return error.status is None or error.status >= 500 or error.status in (408, 429)
    if isinstance(error, LMError) and not isinstance(error, ContextWindowExceededError):
        return bool(is_retryable_lm_error(error))
    return True


def _for_span(error: BaseException) -> Exception | str:
    """The error in a form that a span can record: an exception whose ``str()`` fails would break the trace."""
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
        return "upstream_error", f"An upstream service failed: {redacted_line(str(error)) or error.code}"
    for kind, code, message in _LM_ERRORS:
        if isinstance(error, kind):
            return code, message.format(name=type(error).__name__)
    return "server_error", f"The agent failed ({type(error).__name__}); see its trace for details."
