"""Errors as HTTP responses: a status, the protocol's error object, and whether to send the request again."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from oneturn.core.serialization import replace_surrogates_deep
from oneturn.core.terminal import visible
from oneturn.errors import AgentError
from oneturn.responses.errors import error_object, retry_headers

_log = logging.getLogger(__name__)


def error_response(error: AgentError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return the response for an error: its status, its error object, its retry headers and further ``headers``.

    ``param`` is an empty text if the error is about no field: the AI SDK's provider for Open Responses reads the
    message only of errors in which all four fields are texts.
    """
    fields = replace_surrogates_deep({**error_object(error), "param": error.param or ""})
    return JSONResponse({"error": fields}, error.status or 500, {**retry_headers(error), **(headers or {})})


def invalid_request(message: str, param: str | None = None, status: int = 400) -> AgentError:
    """Return the error of a request that the server refuses."""
    return AgentError(message, "not_found" if status == 404 else "invalid_request", status, param=param)


async def on_http_exception(request: Request, error: Exception) -> JSONResponse:
    """Convert Starlette's exceptions, such as for an unknown path."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    phrase = HTTPStatus(status).phrase
    response = error_response(invalid_request(f"{phrase}: {request.method} {request.url.path}", status=status))
    response.headers.update(getattr(error, "headers", None) or {})
    return response


async def on_exception(request: Request, error: Exception) -> JSONResponse:
    """Hide the details of an error in the server itself; its log has them."""
    _log.error("The server failed at %s.", visible(request.url.path), exc_info=error)
    return error_response(AgentError("The server failed; see its log for details.", "server_error", 500))
