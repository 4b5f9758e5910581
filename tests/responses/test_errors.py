"""The HTTP status of a failure: clients repeat a request by the status alone."""

from __future__ import annotations

import pytest
from dspy.utils.exceptions import (
    LMAuthError,
    LMBillingError,
    LMInvalidRequestError,
    LMNotConfiguredError,
    LMRateLimitError,
    LMServerError,
    LMTimeoutError,
)

from oneturn.errors import EndpointError
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
    ],
)
def test_what_a_retry_cannot_fix_is_not_retried(error: Exception):
    assert to_client_error(error).status == 424


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
