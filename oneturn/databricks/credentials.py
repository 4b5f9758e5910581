"""Who asks the workspace: the agent itself, or the user who asks the agent."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Literal

from oneturn.caller import caller_token
from oneturn.errors import ConfigError

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.core import Config

Who = Literal["agent", "user"]

_HOSTS = ("DATABRICKS_MODEL_SERVING_HOST_URL", "DB_MODEL_SERVING_HOST_URL", "DATABRICKS_HOST")
_SECONDS = 10
_configs: dict[tuple[str, ...], Config] = {}
_lock = threading.Lock()


def workspace_client(credentials: Who = "agent") -> WorkspaceClient:
    """A client of the workspace.

    Args:
        credentials: ``"agent"``, those that the Databricks SDK finds in the environment; or ``"user"``, those of
            whoever asks, which Model Serving and Databricks Apps hand to a run: make a client for each call, and keep
            none.

    Raises:
        ConfigError: the SDK isn't installed; or there is no user here, whose place the agent's own credentials would
            take silently.
    """
    try:
        from databricks.sdk import WorkspaceClient
    except ModuleNotFoundError:
        raise _no_extra() from None
    if credentials == "agent":
        return WorkspaceClient()
    host, token = user_token()
    return WorkspaceClient(host=host, token=token, auth_type="pat")


def describing(credentials: Who) -> Who:
    """Whose credentials read what a tool takes, when an agent is built: its own, while no user asks yet.

    Nothing is done with them but reading the description: a call always has the configured ones.
    """
    return credentials if caller_token() else "agent"


def user_token() -> tuple[str, str]:
    """The workspace's address, and the token of the user who asks the request that is being answered here.

    Raises:
        ConfigError: there is none, or the environment doesn't say which workspace this is.
    """
    token = caller_token()
    host = next((os.environ[name] for name in _HOSTS if os.environ.get(name)), None)
    if not token or host is None:
        raise ConfigError(
            "`credentials: user` needs a user who asks: it works in Databricks Model Serving and in Databricks Apps, "
            "where the platform hands over whose request it is. Elsewhere, set `credentials: agent`."
        )
    return (host if "://" in host else f"https://{host}").rstrip("/"), token


def token_of(credentials: Who, renew: bool = False) -> tuple[str, str]:
    """The workspace's address, and the token of the moment.

    Args:
        credentials: whose.
        renew: forget the agent's last one.

    Raises:
        ConfigError: the SDK isn't installed; or there is no user here.
        ValueError: there are no credentials; the SDK says so.
    """
    if credentials == "user":
        return user_token()
    config = agent_config(renew)
    return str(config.host), str(config.authenticate()["Authorization"].removeprefix("Bearer "))


def agent_config(renew: bool = False) -> Config:
    """The SDK's configuration of this environment, which renews its own tokens; kept while the environment stays.

    Args:
        renew: forget the one that is kept, and with it a token that was taken back before its time.

    Raises:
        ConfigError: the SDK isn't installed.
        ValueError: there are no credentials; the SDK says so.
    """
    key = tuple(f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith("DATABRICKS_"))
    with _lock:
        if renew:
            _configs.pop(key, None)
        if key not in _configs:
            _configs[key] = _config()
        return _configs[key]


def _config() -> Config:
    try:
        from databricks.sdk.core import Config
    except ModuleNotFoundError:
        raise _no_extra() from None
    return Config(http_timeout_seconds=_SECONDS, retry_timeout_seconds=_SECONDS)


def _no_extra() -> ConfigError:
    return ConfigError('Databricks needs the extra: pip install "oneturn[databricks]"')
