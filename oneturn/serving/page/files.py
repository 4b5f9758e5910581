"""The files of the page, with their types, entity tags and a strict Content-Security-Policy."""

from __future__ import annotations

import hashlib
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_POLICY = "; ".join(
    (
        "default-src 'self'",
        "img-src 'self' data: blob:",  # images that a person attaches
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # the browser asks each time whether the entity tag is still that of the file
}
_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}


class PageFile:
    """An endpoint that answers with one file.

    Args:
        name: the file's name in ``static``.
    """

    def __init__(self, name: str):
        self._content = (files(__package__) / "static" / name).read_bytes()
        self._type = _TYPES[name[name.rindex(".") :]]
        self._tag = f'"{hashlib.sha256(self._content).hexdigest()[:32]}"'

    async def __call__(self, request: Request) -> Response:
        """Return the file, or 304 if the browser has it."""
        headers = {**_HEADERS, "ETag": self._tag}
        tags = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
        if self._tag in tags:
            return Response(status_code=304, headers=headers)
        return Response(self._content, headers=headers, media_type=self._type)


def page_routes(start: str = "index.html") -> list[Route]:
    """Return the routes of the page: ``/`` and ``/page/<name>``.

    Args:
        start: the file at ``/``.
    """
    names = sorted(entry.name for entry in (files(__package__) / "static").iterdir())
    assets = [name for name in names if not name.endswith(".html")]
    return [
        Route("/", PageFile(start).__call__, methods=["GET"]),
        *(Route(f"/page/{name}", PageFile(name).__call__, methods=["GET"]) for name in assets),
    ]
