"""Addresses of endpoints as people write them, with or without a scheme."""

from __future__ import annotations

import re

_LOOPBACK = r"(localhost|127(\.\d{1,3}){3}|\[::1\]|0\.0\.0\.0)"
_HOST = r"([\w-]+(\.[\w-]+)*|\[[0-9A-Fa-f:.]+\])"
_SCHEME = re.compile(r"https?://", re.IGNORECASE)
_LOCAL = re.compile(rf"{_LOOPBACK}(:\d{{1,5}})?(?=[/?#]|$)", re.IGNORECASE)
_WITH_PORT = re.compile(rf"{_HOST}:\d{{1,5}}(?=[/?#]|$)")
_TLS_PORT = re.compile(rf"{_HOST}:443(?!\d)")
_NAMED = re.compile(r"[\w-]+(\.[\w-]+)+(?=[/?#]|$)")


def is_url(text: str) -> bool:
    """Return whether a text is an address: a URL of HTTP, ``localhost`` or ``HOST:PORT``."""
    return any(pattern.match(text) for pattern in (_SCHEME, _LOCAL, _WITH_PORT)) and not re.search(r"\s", text)


def with_scheme(address: str) -> str:
    """Return an address with a scheme.

    ``http://`` is added to ``localhost``, an address of this machine, and ``HOST:PORT``; ``https://`` to another name,
    such as ``my-workspace.example.com/serving-endpoints/my_agent``. Any other text is unchanged.
    """
    if _SCHEME.match(address):
        return address
    if _LOCAL.match(address) or _WITH_PORT.match(address):
        return f"{'https' if _TLS_PORT.match(address) else 'http'}://{address}"
    return f"https://{address}" if _NAMED.match(address) else address
