"""An ASGI middleware that decides who may send requests: by host, by origin, and by a bearer key."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Collection
from contextlib import suppress
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from oneturn.errors import AgentError
from oneturn.serving.http_errors import error_response

OPEN_PATHS = frozenset({"/health", "/ready"})
"""The paths that need no key, for load balancers and orchestrators."""

_EXPOSED = ["Retry-After", "x-should-retry"]


class ClientIdentity:
    """Tells the clients of a server apart: by the API key, and by the user that a proxy names.

    Databricks Apps sets ``X-Forwarded-User`` for the user who has signed in. A client that reaches the server without a
    proxy can send any name; the ids of responses can't be guessed all the same.

    Args:
        api_key: the server's API key; ``None`` for none.
    """

    def __init__(self, api_key: str | None = None):
        self._api_key = api_key or ""

    def of(self, headers: Headers) -> str:
        """Return a hash of who sends a request, from which the key can't be guessed."""
        user = headers.get("x-forwarded-user", "")
        return hmac.new(_derived(self._api_key), user.encode(), "sha256").hexdigest()


@lru_cache(maxsize=8)
def _derived(api_key: str) -> bytes:
    return hashlib.pbkdf2_hmac("sha256", api_key.encode(), b"oneturn response store", 100_000)


class Access:
    """Hands on requests that are allowed, and answers the others with 401 or 403.

    - While the server listens on a loopback address, ``Host`` must name this machine: otherwise any web page could
      reach it through a DNS name of its own that resolves to 127.0.0.1 (DNS rebinding).
    - A request from a page of another origin needs that origin in ``cors``.
    - If there is an API key, ``Authorization: Bearer <key>`` is required, except at ``open_paths``.

    Args:
        app: the application.
        loopback: whether the server listens on a loopback address.
        allowed_hosts: further values of ``Host``, such as the name by which a proxy on this machine is reached.
        cors: the origins whose pages may send requests, such as ``https://chat.example.com``; ``*`` for all.
        api_key: the key; ``None`` for none.
        open_paths: the paths that need no key.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        loopback: bool,
        allowed_hosts: Collection[str] = (),
        cors: Collection[str] = (),
        api_key: str | None = None,
        open_paths: Collection[str] = OPEN_PATHS,
    ):
        self._loopback = loopback
        self._allowed_hosts = frozenset(host.lower() for host in allowed_hosts)
        self._cors = frozenset(cors)
        self._api_key = None if api_key is None else api_key.encode()
        self._open_paths = frozenset(open_paths)
        self._app = app
        self._checked: ASGIApp = self._check_key
        if cors:  # outside of the key's check: a preflight request has no key, and a page may read a 401
            self._checked = CORSMiddleware(
                self._check_key,
                allow_origins=list(cors),
                allow_methods=["DELETE", "GET", "POST"],
                allow_headers=["*"],
                expose_headers=_EXPOSED,
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            self._check_host(headers)
            self._check_origin(headers)
        except AgentError as error:
            await error_response(error)(scope, receive, send)
        else:
            await self._checked(scope, receive, send)

    async def _check_key(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._api_key is not None and _own_path(scope) not in self._open_paths:
            scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
            # Bytes: compare_digest refuses a str with other than ASCII characters.
            if scheme.lower() != "bearer" or not hmac.compare_digest(key.strip().encode(), self._api_key):
                message = "The server requires its API key: send it as Authorization: Bearer <key>."
                error = AgentError(message, "invalid_api_key", 401)
                await error_response(error, {"WWW-Authenticate": "Bearer"})(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check_host(self, headers: Headers) -> None:
        host = headers.get("host", "")
        name = _host_name(host)
        if not self._loopback or is_loopback(name) or name in self._allowed_hosts:
            return
        raise AgentError(
            f"The server listens for this machine only, and the request's Host is {host!r:.80}. Use "
            "http://localhost or http://127.0.0.1, or add the name to serve.allowed_hosts.",
            "host_not_allowed",
            403,
        )

    def _check_origin(self, headers: Headers) -> None:
        origin = headers.get("origin")
        if origin is None or origin in self._cors or "*" in self._cors:
            return
        if headers.get("sec-fetch-site") == "same-origin":  # behind a proxy, Host may not be what the browser sees
            return
        if is_own_origin(origin, headers):
            return
        message = f"Pages of {origin!r:.80} may not send requests to this server. Add the origin to serve.cors."
        raise AgentError(message, "origin_not_allowed", 403)


def is_own_origin(origin: str, headers: Headers) -> bool:
    """Return whether an ``Origin`` header names the host that the request was sent to."""
    with suppress(ValueError):  # it isn't an address
        return origin != "null" and urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
    return False


def _own_path(scope: Scope) -> str:
    """Return a request's path within this application, which may be mounted below another one."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", "")) or "/"


def _host_name(host: str) -> str:
    """Return a ``Host`` header's name in lower case, without its port and an IPv6 address's brackets."""
    with suppress(ValueError):
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    return ""


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is one that only this machine can reach."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False
