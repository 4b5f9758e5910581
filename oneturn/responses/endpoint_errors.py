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


def mappings(value: Any) -> list[Mapping[str, Any]]:
    """The objects in a list; servers may send anything."""
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list | tuple) else []


def check_types(event: Mapping[str, Any]) -> None:
    """Check what an answer can't be read without. What else has a wrong type counts as missing.

    Raises:
        EndpointError: the event's item or response is no object, or a response's output no list of them.
    """
    for name in ("item", "response"):
        if not isinstance(event.get(name) or {}, Mapping):
            raise bad_stream(f"The {name} of {event.get('type')!r:.80} is no object", event[name])
    output = mapping(event.get("response")).get("output") or []
    if not isinstance(output, list | tuple) or len(mappings(output)) < len(output):
        raise bad_stream("The output of a response is no list of items", output)


def bad_stream(problem: str, value: Any) -> EndpointError:
    """Return the error of an endpoint that sends something else than the protocol has."""
    return EndpointError(f"{problem}: {value!r:.80}. Is the URL that of a Responses endpoint?", "bad_stream")


def raise_for_error(event: Mapping[str, Any]) -> None:
    """Raise the error that an event is, or has.

    Raises:
        EndpointError: it is an error.
    """
    kind, response = event.get("type"), mapping(event.get("response"))
    for databricks in (event.get("databricks_output"), response.get("databricks_output")):
        if error := mapping(databricks).get("error"):
            raise read_error(error)
    if kind == "error" or (kind is None and event.get("error")):
        raise read_error(event.get("error") or event)
    if kind in ("response.failed", "response.incomplete"):
        if response.get("error"):
            raise read_error(response["error"])
        reason = str(mapping(response.get("incomplete_details")).get("reason") or "no reason given")
        raise EndpointError(f"The run ended before the answer was complete: {reason}.", code=reason)


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
