"""Databricks credentials: the agent's own, or those of the user who calls the agent."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from mlflow.exceptions import MlflowException

from oneturn.core.run_context import caller_token, current_run
from oneturn.errors import ConfigError, DeployError, EndpointError, ToolError

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.core import Config


Who = Literal["agent", "user"]

_HOSTS = ("DATABRICKS_MODEL_SERVING_HOST_URL", "DB_MODEL_SERVING_HOST_URL", "DATABRICKS_HOST")
_SECONDS = 10
_configs: dict[tuple[str, ...], Config] = {}
_lock = threading.Lock()


def workspace_client(credentials: Who = "agent") -> WorkspaceClient:
    """Create a workspace client.

    Args:
        credentials: ``"agent"`` for the credentials that the Databricks SDK finds in the environment; ``"user"`` for
            those of the calling user, passed to a run by Model Serving and Databricks Apps. Create a client with user
            credentials for each call and don't reuse it.

    Raises:
        ConfigError: the SDK isn't installed; or ``credentials`` is ``"user"`` and no user's token is available.
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
    """Return whose credentials to use for reading a tool's schema when an agent is built.

    Without a calling user, these are the agent's. They only read the schema; calls always use the configured ones.
    """
    return credentials if caller_token() else "agent"


def user_token() -> tuple[str, str]:
    """Return the workspace's URL and the token of the user whose request is being answered.

    Raises:
        ConfigError: no user's token is available, or the environment doesn't name the workspace.
    """
    token = caller_token()
    host = next((os.environ[name] for name in _HOSTS if os.environ.get(name)), None)
    if not token or host is None:
        raise ConfigError(
            "`credentials: user` needs a calling user: it works in Databricks Model Serving and in Databricks Apps, "
            "where the platform forwards the user's token. Elsewhere, set `credentials: agent`."
        )
    return (host if "://" in host else f"https://{host}").rstrip("/"), token


def workspace_token(credentials: Who, renew: bool = False) -> tuple[str, str]:
    """Return the workspace's URL and a current token.

    Args:
        credentials: whose token.
        renew: discard the agent's cached token.

    Raises:
        ConfigError: the SDK isn't installed, or no user's token is available.
        ValueError: the SDK finds no credentials.
    """
    if credentials == "user":
        return user_token()
    config = agent_config(renew)
    return str(config.host), str(config.authenticate()["Authorization"].removeprefix("Bearer "))


def agent_config(renew: bool = False) -> Config:
    """Return the SDK's configuration for this environment, which renews its own tokens.

    It is cached until a ``DATABRICKS_*`` environment variable changes.

    Args:
        renew: discard the cached configuration, and with it a token that was revoked early.

    Raises:
        ConfigError: the SDK isn't installed.
        ValueError: the SDK finds no credentials.
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


_HOW = (
    "Set DATABRICKS_TOKEN; or DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET; or DATABRICKS_CONFIG_PROFILE, which "
    "names a profile of ~/.databrickscfg."
)
_bearer_configs: dict[tuple[str, ...], Config] = {}


def bearer_token(url: str) -> str:
    """Return a token for the workspace that serves ``url``, or for an app of it; expired tokens are renewed.

    The Databricks SDK finds the credentials: a token, a service principal's, or a profile's.

    Raises:
        EndpointError: there are no credentials, they are invalid, or they belong to another workspace than ``url``.
    """
    origin = "{0.scheme}://{0.netloc}".format(urlsplit(url))
    app = (urlsplit(url).hostname or "").endswith(".databricksapps.com")  # apps accept OAuth only
    if not app and (token := os.environ.get("DATABRICKS_TOKEN")):
        return token
    try:
        config = _bearer_config(origin)
        if not app and urlsplit(config.host).netloc != urlsplit(origin).netloc:
            raise EndpointError(
                f"The credentials belong to {config.host} and aren't sent to {origin}, which is another workspace. "
                f"{_HOW}",
                "no_token",
                401,
            )
        if app and config.auth_type == "pat":
            raise EndpointError(
                "An app accepts only OAuth, not a personal token. Set DATABRICKS_CLIENT_ID and "
                "DATABRICKS_CLIENT_SECRET, or a profile of `databricks auth login` in DATABRICKS_CONFIG_PROFILE.",
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
    except (ValueError, OSError) as error:  # no credentials found, or rejected by the workspace
        raise EndpointError(f"{_describe_auth_error(error, origin)} {_HOW}", "no_token", 401) from None


def _bearer_config(origin: str) -> Config:
    """Return the SDK's configuration for ``origin``, cached like :func:`agent_config`; it renews its own tokens."""
    from databricks.sdk.core import Config

    key = (origin, *(f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith("DATABRICKS_")))
    with _lock:
        if key not in _bearer_configs:
            workspace = os.environ.get("DATABRICKS_HOST") or os.environ.get("DATABRICKS_CONFIG_PROFILE")
            needs_host = os.environ.get("DATABRICKS_CLIENT_ID") and not workspace
            _bearer_configs[key] = Config(host=origin) if needs_host else Config()
        return _bearer_configs[key]


def _describe_auth_error(error: Exception, origin: str) -> str:
    """Describe the error, without the configuration that the SDK appends to its message."""
    message = str(error).splitlines()[0].partition(" Config: ")[0].rstrip(".")
    if "cannot configure default credentials" in message:
        return f"There are no credentials for {origin}."
    return f"The credentials for {origin} are invalid: {message}."


@contextmanager
def as_deploy_error(what: str) -> Iterator[None]:
    """Convert SDK errors inside the block to ``DeployError``; also usable as a decorator.

    Args:
        what: the failed action, which starts the message.

    Raises:
        DeployError: there are no credentials, or Databricks rejects a request; includes its message.
        ConfigError: the extra isn't installed.
    """
    try:
        from databricks.sdk.errors.base import DatabricksError
    except ModuleNotFoundError:
        raise ConfigError('Databricks needs the extra: pip install "oneturn[databricks]"') from None
    try:
        yield
    except (DatabricksError, MlflowException, ValueError) as error:
        message = str(error).strip().splitlines()[0].partition(" Config: ")[0]
        raise DeployError(f"{what}: {message}") from error


def client_factory(credentials: Who) -> Callable[[], WorkspaceClient]:
    """Return a function that returns a client: the agent's is cached, a user's is created for each call."""

    lock = threading.Lock()
    cache: list[WorkspaceClient] = []

    def client() -> WorkspaceClient:
        if credentials == "user":
            return workspace_client("user")
        with lock:
            if not cache:
                cache.append(workspace_client("agent"))
            return cache[0]

    return client


@contextmanager
def as_tool_error() -> Iterator[None]:
    """Convert workspace errors inside the block to a one-line ``ToolError`` for the LM.

    Raises:
        ToolError: the workspace rejects a request, or can't be reached.
    """
    from databricks.sdk.errors.base import DatabricksError

    try:
        yield
    except DatabricksError as error:
        raise ToolError(first_line(str(error)) or type(error).__name__) from error
    except OSError as error:
        raise ToolError(f"the workspace can't be reached ({type(error).__name__})") from error


def first_line(text: str) -> str:
    """Return the first line of an SDK message, without the stack trace and configuration that follow."""
    return next(iter(text.strip().splitlines()), "").partition(" Config: ")[0]


def pause(seconds: float) -> None:
    """Sleep until the time is up or the run has to stop.

    Raises:
        RunCancelled: the run was cancelled, or its deadline passed.
    """
    control, stopped = current_run(), threading.Event()
    with control.waking(stopped.set):
        remaining = control.remaining()
        stopped.wait(seconds if remaining is None else min(seconds, remaining))
    control.check()
