"""Read the errors that an endpoint sends, in an HTTP response or in a stream, as ``EndpointError``."""

from __future__ import annotations

import contextlib
import http.client
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from oneturn.errors import EndpointError

_BUSY = {"too_many_requests": 429, "rate_limit_exceeded": 429, "overloaded": 503}
"""The status that stands for these types and codes, in a stream that has begun with status 200."""


def read_error(error: Any, status: int | None = None, headers: Mapping[str, str] | None = None) -> EndpointError:
    """Read an error object: of the protocol, of Databricks or of FastAPI; or a text.

    An error inside a stream has its ``headers``, and maybe its ``status``, in the object itself.

    Args:
        error: the error.
        status: the status of the HTTP response, if that is an error.
        headers: the headers of that response.
    """
    fields = error if isinstance(error, Mapping) else {"message": error}
    kind = fields.get("type") if fields.get("type") != "error" else None  # the event's
    default = f"http_{status}" if status else kind or "server_error"
    code = str(fields.get("code") or fields.get("error_code") or default)
    reason = f"HTTP {status} {http.client.responses.get(status, '')}".rstrip() if status else code
    message = str(fields.get("message") or fields.get("detail") or reason)
    retry_after = _retry_after(headers)
    if retry_after is None:
        retry_after = _retry_after(fields.get("headers"))
    return EndpointError(message, code, status or _status(fields, code, str(kind)), retry_after)


def mapping(value: Any) -> Mapping[str, Any]:
    """Return ``value`` if it is an object, else an empty one: servers may send anything."""
    return value if isinstance(value, Mapping) else {}


def _status(fields: Mapping[str, Any], code: str, kind: str) -> int | None:
    """The HTTP status that an error inside a stream states, or that its code or type stands for."""
    for value in (fields.get("status"), fields.get("status_code"), _BUSY.get(code), _BUSY.get(kind)):
        if isinstance(value, int) and 400 <= value < 600:
            return value
    return None


def _retry_after(headers: Any) -> float | None:
    """Seconds to wait, from a ``Retry-After`` header (RFC 9110, 10.2.3): a number or a date."""
    values = [str(value) for name, value in mapping(headers).items() if str(name).lower() == "retry-after"]
    for header in values:
        with contextlib.suppress(ValueError):
            return max(0.0, float(header))
        with contextlib.suppress(ValueError):
            return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    return None
