"""The HTTP status of a failure: clients repeat a request by the status alone."""

from __future__ import annotations

import dspy
import pytest
from dspy.utils.exceptions import (
    AdapterParseError,
    LMAuthError,
    LMBillingError,
    LMInvalidRequestError,
    LMNotConfiguredError,
    LMRateLimitError,
    LMServerError,
    LMTimeoutError,
)
from mlflow.deployments.constants import MLFLOW_DEPLOYMENT_CLIENT_REQUEST_RETRY_CODES
from mlflow.utils.request_utils import _TRANSIENT_FAILURE_RESPONSE_CODES

from oneturn.errors import ApprovalRequired, EndpointError, RequestError, RunError
from oneturn.responses.errors import to_client_error


@pytest.mark.parametrize(
    "error",
    [
        LMAuthError("no"),
        LMBillingError("no"),
        LMInvalidRequestError("no"),
        LMNotConfiguredError("no"),
        EndpointError("no", "no_access", 403),
        EndpointError("no", "invalid_request", 400),
        AdapterParseError("JSONAdapter", dspy.Signature("question -> answer"), "prose"),
        RunError("no", "invalid_output"),
        RunError("no", "max_iters"),
        RunError("no", "content_filter"),
        RunError("no", "refusal"),
        RunError("no", "context_length_exceeded"),
        ApprovalRequired("refund", {}),
        RequestError("no"),
    ],
)
def test_what_a_retry_cannot_fix_is_not_retried(error: Exception):
    failure = to_client_error(error)
    assert failure.status is not None
    assert failure.status not in MLFLOW_DEPLOYMENT_CLIENT_REQUEST_RETRY_CODES | _TRANSIENT_FAILURE_RESPONSE_CODES
    assert failure.status < 500, "OpenAI's clients retry these"
    assert not failure.retryable


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (LMRateLimitError("later"), 429),
        (LMTimeoutError("later"), 504),
        (LMServerError("later"), 502),
        (EndpointError("later", "busy", 503), 502),
        (EndpointError("later", "stream_ended"), 502),
    ],
)
def test_what_a_retry_may_fix_says_so(error: Exception, status: int):
    assert to_client_error(error).status == status
