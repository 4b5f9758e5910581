"""The server of ``oneturn data review``: candidates for examples on the page, for a person to accept or reject."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from oneturn.errors import DataError
from oneturn.serving.access import Access
from oneturn.serving.body_limit import BodyLimit
from oneturn.serving.http_errors import error_response, invalid_request, on_exception, on_http_exception
from oneturn.serving.page.files import page_routes
from oneturn.serving.page.traces import trace_url_template

_MAX_BYTES, _SECONDS = 16_000_000, 30.0


class ReviewQueue(Protocol):
    """Candidates that wait for a person. Methods raise ``DataError`` for what can't be done."""

    def describe(self) -> dict[str, Any]:
        """What a form needs: ``name``, ``split``, ``schema``, ``inputs`` and ``outputs``."""

    def candidates(self) -> list[dict[str, Any]]:
        """The candidates: ``id``, ``values``, ``provenance`` and ``labelled``."""

    def answer(self, ident: str) -> Mapping[str, Any] | None:
        """The outputs that the agent gave for a candidate's question, if they are known."""

    def accept(self, ident: str, values: Mapping[str, Any]) -> None:
        """Move a candidate with these values into its split."""

    def reject(self, ident: str) -> None:
        """Drop a candidate."""


class ReviewApplication(Starlette):
    """The ASGI application of a review. It answers only this machine, and only requests with its token.

    Args:
        queue: the candidates.

    Attributes:
        token: the token; the page finds it in its URL after ``#``, which browsers don't send.
    """

    def __init__(self, queue: ReviewQueue):
        self._queue = queue
        self.token = secrets.token_urlsafe(32)
        page = page_routes("review.html")
        super().__init__(
            routes=[
                *page,
                Route("/review/candidates", self._list),
                Route("/review/candidates/{id:path}/answer", self._answer),
                Route("/review/candidates/{id:path}/accept", self._accept, methods=["POST"]),
                Route("/review/candidates/{id:path}/reject", self._reject, methods=["POST"]),
            ],
            middleware=[
                Middleware(Access, loopback=True, api_key=self.token, open_paths={route.path for route in page}),
                Middleware(BodyLimit, max_bytes=_MAX_BYTES, seconds=_SECONDS),
            ],
            exception_handlers={
                HTTPException: on_http_exception,
                DataError: _on_data_error,
                Exception: on_exception,
            },
        )

    def stop(self) -> None:
        """Do nothing: no request goes on for long."""

    async def _list(self, request: Request) -> JSONResponse:
        description = await run_in_threadpool(self._queue.describe)
        candidates = await run_in_threadpool(self._queue.candidates)
        return JSONResponse({**description, "trace_url": trace_url_template(), "candidates": candidates})

    async def _answer(self, request: Request) -> JSONResponse:
        return JSONResponse({"outputs": await run_in_threadpool(self._queue.answer, request.path_params["id"])})

    async def _accept(self, request: Request) -> JSONResponse:
        try:
            values = json.loads(await request.body())["values"]
        except (ValueError, KeyError, TypeError):
            values = None
        if not isinstance(values, dict):
            return error_response(invalid_request("The body must be a JSON object with values, an object.", "values"))
        await run_in_threadpool(self._queue.accept, request.path_params["id"], values)
        return JSONResponse({"accepted": request.path_params["id"]})

    async def _reject(self, request: Request) -> JSONResponse:
        await run_in_threadpool(self._queue.reject, request.path_params["id"])
        return JSONResponse({"rejected": request.path_params["id"]})


async def _on_data_error(request: Request, error: Exception) -> JSONResponse:
    return error_response(invalid_request(str(error)))
