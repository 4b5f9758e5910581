"""Convert exceptions to client errors: a code and a message without traceback, path or secret."""

from __future__ import annotations

import math
from typing import Any

import mlflow
from dspy.utils.exceptions import (
    AdapterParseError,
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

from oneturn.core.serialization import replace_surrogates_deep
from oneturn.errors import AgentError, EndpointError, RequestError, RunError
from oneturn.lm.endings import error_cause
from oneturn.tools.errors import redacted_line

_LM_UNUSABLE = "The language model is unusable ({name}); the operator must fix its credentials, billing or settings."
_LM_ERRORS: tuple[tuple[type[Exception], str, str], ...] = (
    (LMRateLimitError, "rate_limit_exceeded", "The language model is rate-limited; retry later."),
    (LMTimeoutError, "lm_timeout", "The language model timed out; retry later."),
    (LMAuthError, "lm_unusable", _LM_UNUSABLE),
    (LMBillingError, "lm_unusable", _LM_UNUSABLE),
    (LMConfigurationError, "lm_unusable", _LM_UNUSABLE),
    (AdapterParseError, "invalid_output", "The language model's reply can't be parsed."),
    (LMInvalidRequestError, "lm_unusable", _LM_UNUSABLE),
    (LMUnsupportedFeatureError, "lm_unusable", _LM_UNUSABLE),
    (LMError, "lm_error", "The call to the language model failed ({name}); retry later."),
)
_CAUSES: dict[str | None, tuple[str, str]] = {
    "context_length": ("context_length_exceeded", "The request is too long for the language model; shorten it."),
    "content_filter": ("content_filter", "A content filter of the language model's provider refused the request."),
    "failed_reply": ("invalid_output", "The language model's reply can't be parsed."),
}
_NOT_RETRYABLE = 424
"""The status of a failed dependency that a retry can't fix. MLflow's client, which goes by the status alone and retries
429, 500, 502 and 503 seven times, and OpenAI's, which retries 5xx twice, would run the agent's tools again."""

_STATUS = {
    "invalid_request": 400,
    "context_length_exceeded": 400,
    "rate_limit_exceeded": 429,
    "lm_timeout": 504,
    "lm_unusable": _NOT_RETRYABLE,
    "lm_error": 502,
    "upstream_error": 502,
    "invalid_output": _NOT_RETRYABLE,
    "max_iters": _NOT_RETRYABLE,
    "approval_required": _NOT_RETRYABLE,
    "content_filter": 422,
    "refusal": 422,
    "overloaded": 503,
}

_RETRYABLE = frozenset({"rate_limit_exceeded", "lm_timeout", "lm_error", "upstream_error", "overloaded"})
_RETRY_AFTER = 1.0  # seconds, if nothing is known

# The error types of the Open Responses specification, by code and else by status.
_MODEL_ERRORS = frozenset({"lm_timeout", "lm_unusable", "lm_error", "invalid_output", "max_iters", "refusal"})
_TYPES = {404: "not_found", 429: "too_many_requests"}


def error_object(error: AgentError) -> dict[str, Any]:
    """Return the ``error`` object of the protocol: type, code, message and param."""
    return {
        "type": _error_type(error),
        "code": error.code,
        "message": str(error),
        "param": error.param,
    }


def error_event(error: AgentError) -> dict[str, Any]:
    """Return the ``error`` event of a stream, without its ``sequence_number``.

    It has the fields that OpenAI's clients read, and the nested object of Open Responses, whose ``headers`` are those
    of a response with an error status.
    """
    fields = replace_surrogates_deep(error_object(error))
    flat = {name: fields[name] for name in ("code", "message", "param")}
    return {"type": "error", **flat, "error": {**fields, "headers": retry_headers(error)}}


def retry_headers(error: AgentError) -> dict[str, str]:
    """Return the HTTP headers that tell a client whether, and when, to send the request again."""
    if not error.retryable:
        return {"x-should-retry": "false"}
    seconds = _RETRY_AFTER if error.retry_after is None else error.retry_after
    return {"Retry-After": str(math.ceil(seconds))}


def _error_type(error: AgentError) -> str:
    status = error.status or 500
    if error.code in _MODEL_ERRORS:
        return "model_error"
    if status in _TYPES:
        return _TYPES[status]
    return "invalid_request" if 400 <= status < 500 and error.code != "upstream_error" else "server_error"


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
    retryable = _is_retryable(error)
    status = _STATUS.get(code, 500) if retryable else _NOT_RETRYABLE
    param = getattr(error, "param", None)
    return AgentError(message, code, status, retry_after, param, retryable=retryable and code in _RETRYABLE)


def _is_retryable(error: BaseException) -> bool:
    """Whether a retry may succeed; ``True`` for errors whose code alone tells it."""
    if isinstance(error, EndpointError):
        return error.status is None or error.status >= 500 or error.status in (408, 429)
    if isinstance(error, LMError) and error_cause(error) not in _CAUSES:
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
    if known := _CAUSES.get(error_cause(error)):
        return known
    for kind, code, message in _LM_ERRORS:
        if isinstance(error, kind):
            return code, message.format(name=type(error).__name__)
    return "server_error", f"The agent failed ({type(error).__name__}); see its trace for details."
