"""``GET`` and ``DELETE /v1/responses/{id}``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from oneturn.errors import AgentError
from oneturn.serving.http_errors import error_response, invalid_request

if TYPE_CHECKING:
    from oneturn.serving.store.request import RequestStorage

RESPONSE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""The form of the ids of responses."""

PATH = "/v1/responses/{id}"


class StoredResponses:
    """The endpoints that read and delete stored responses.

    Args:
        storage: the server's store; ``None`` if it has none.
    """

    def __init__(self, storage: RequestStorage | None):
        self._storage = storage

    @property
    def routes(self) -> list[Route]:
        """The routes of the endpoints."""
        return [Route(PATH, self.get, methods=["GET"]), Route(PATH, self.delete, methods=["DELETE"])]

    async def get(self, request: Request) -> Response:
        """The response; 404 if it isn't stored for the client."""
        try:
            _check_query(request)
            storage, id = self._find(request)
            response = await run_in_threadpool(storage.responses.get, storage.owner(request.headers), id)
            if response is None:
                raise _not_found(id)
        except AgentError as error:
            return error_response(error)
        return JSONResponse(response)

    async def delete(self, request: Request) -> Response:
        """Delete the response; 404 if it isn't stored for the client."""
        try:
            storage, id = self._find(request)
            if not await run_in_threadpool(storage.responses.delete, storage.owner(request.headers), id):
                raise _not_found(id)
        except AgentError as error:
            return error_response(error)
        return JSONResponse({"id": id, "object": "response", "deleted": True})

    def _find(self, request: Request) -> tuple[RequestStorage, str]:
        id = request.path_params["id"]
        if self._storage is None:
            raise invalid_request("This server stores no responses (serve.store_env isn't set).", status=404)
        if not RESPONSE_ID.fullmatch(id):
            raise _not_found(id)
        return self._storage, id


def _check_query(request: Request) -> None:
    for name, value in request.query_params.multi_items():
        if name == "stream" and value == "false":
            continue
        if name in ("include", "include[]") and value == "reasoning.encrypted_content":
            continue
        advice = "; a stored response isn't streamed" if name == "stream" else ""
        raise invalid_request(f"GET /v1/responses doesn't support {name}={value!r:.80}; leave it out{advice}.", name)


def _not_found(id: str) -> AgentError:
    message = (
        f"The response {id!r:.80} isn't stored: it was made with store: false or another key, was deleted, or has "
        "expired."
    )
    return invalid_request(message, "id", 404)
