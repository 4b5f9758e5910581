"""The token to ask a served agent with, from whatever credentials of the workspace this machine has."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from oneturn.errors import EndpointError

if TYPE_CHECKING:
    from databricks.sdk.core import Config

_HOW = (
    "Set DATABRICKS_TOKEN; or DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET; or DATABRICKS_CONFIG_PROFILE, which "
    "names a profile of ~/.databrickscfg."
)
_configs: dict[tuple[str, ...], Config] = {}
_lock = threading.Lock()


def bearer_token(url: str) -> str:
    """A token for the workspace that ``url`` belongs to, or for an app of it; a new one where the last has expired.

    The credentials are those that the Databricks SDK finds: a token, a service principal's, or a profile's.

    Raises:
        EndpointError: there are none, they don't hold, or they belong to another workspace than ``url``.
    """
    origin = "{0.scheme}://{0.netloc}".format(urlsplit(url))
    app = (urlsplit(url).hostname or "").endswith(".databricksapps.com")  # which takes OAuth only
    if not app and (token := os.environ.get("DATABRICKS_TOKEN")):
        return token
    try:
        config = _config(origin)
        if not app and urlsplit(config.host).netloc != urlsplit(origin).netloc:
            raise EndpointError(
                f"The credentials here belong to {config.host}, and {origin} is another workspace: they aren't sent "
                f"there. {_HOW}",
                "no_token",
                401,
            )
        if app and config.auth_type == "pat":
            raise EndpointError(
                "An app takes OAuth only, no personal token: set DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET, or "
                "a profile of `databricks auth login` in DATABRICKS_CONFIG_PROFILE.",
                "no_token",
                401,
            )
        return str(config.authenticate()["Authorization"].removeprefix("Bearer "))
    except ModuleNotFoundError:
        raise EndpointError(
            'DATABRICKS_TOKEN isn\'t set. Other credentials need the extra: pip install "oneturn[databricks]"',
            "no_token",
            401,
        ) from None
    except (ValueError, OSError) as error:  # none are found, or the workspace refuses them
        raise EndpointError(f"{_refusal(error, origin)} {_HOW}", "no_token", 401) from None


def _config(origin: str) -> Config:
    """The SDK's credentials, kept while the environment stays the same: each of them renews its own tokens."""
    from databricks.sdk.core import Config

    key = (origin, *(f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith("DATABRICKS_")))
    with _lock:
        if key not in _configs:
            named = os.environ.get("DATABRICKS_HOST") or os.environ.get("DATABRICKS_CONFIG_PROFILE")
            own = os.environ.get("DATABRICKS_CLIENT_ID") and not named
            _configs[key] = Config(host=origin) if own else Config()
        return _configs[key]


def _refusal(error: Exception, origin: str) -> str:
    """What went wrong, without what the SDK adds of the configuration."""
    said = str(error).splitlines()[0].partition(" Config: ")[0].rstrip(".")
    if "cannot configure default credentials" in said:
        return f"There are no credentials for {origin}."
    return f"The credentials for {origin} don't hold: {said}."
