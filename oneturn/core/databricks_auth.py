"""Databricks credentials and clients: the agent's own, or those of the user who calls the agent."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from mlflow.exceptions import MlflowException

from oneturn.core.run_context import caller_token
from oneturn.errors import ConfigError, DeployError, EndpointError, ToolError

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient


Who = Literal["agent", "user"]

_HOSTS = ("DATABRICKS_MODEL_SERVING_HOST_URL", "DB_MODEL_SERVING_HOST_URL", "DATABRICKS_HOST")
_SECONDS = 10
_REQUEST_SECONDS, _RETRY_SECONDS = 60, 300  # the SDK's own defaults
_clients: dict[tuple[str, str | None, bool], WorkspaceClient] = {}
_lock = threading.Lock()


def workspace_client(credentials: Who = "agent", *, quick: bool = False) -> WorkspaceClient:
    """Return a client of the workspace. Its ``config`` has the host, and renews the token.

    The agent's client is shared by the process until the credentials in its environment change. A user's client is
    created for each call: don't keep it.

    Args:
        credentials: ``"agent"`` for the credentials that the Databricks SDK finds in the environment; ``"user"`` for
            those of the calling user, passed to a run by Model Serving and Databricks Apps.
        quick: give up after ten seconds, also if the workspace asks to retry.

    Raises:
        ConfigError: the SDK isn't installed; or ``credentials`` is ``"user"`` and no user's token is available.
        ValueError: the SDK finds no credentials.
    """
    if credentials == "user":
        host, token = user_token()
        return _build_client(quick, host, token)
    return _agent_client(quick=quick)


def workspace_token(credentials: Who, renew: bool = False) -> tuple[str, str]:
    """Return the workspace's URL and a current token, for requests that the SDK's client doesn't make.

    Args:
        credentials: whose token.
        renew: discard the agent's cached token, for one that was revoked early.

    Raises:
        ConfigError: the SDK isn't installed, or no user's token is available.
        ValueError: the SDK finds no credentials.
    """
    if credentials == "user":
        return user_token()
    client = _agent_client(renew=renew)
    return str(client.config.host), _token_of(client)


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
    return _with_scheme(host).rstrip("/"), token


def schema_credentials(credentials: Who) -> Who:
    """Return whose credentials to use for reading a tool's schema when an agent is built.

    Without a calling user, these are the agent's. They only read the schema; calls always use the configured ones.
    """
    return credentials if caller_token() else "agent"


_HOW = (
    "Set DATABRICKS_TOKEN; or DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET; or DATABRICKS_CONFIG_PROFILE, which "
    "names a profile of ~/.databrickscfg."
)


def bearer_token(url: str) -> str:
    """Return a token for the workspace that serves ``url``, or for an app of it; expired tokens are renewed.

    The Databricks SDK finds the credentials: a token, a service principal's, or a profile's. ``DATABRICKS_TOKEN`` works
    without the SDK.

    Raises:
        EndpointError: there are no credentials, they are invalid, or they belong to another workspace than ``url``.
    """
    origin = "{0.scheme}://{0.netloc}".format(urlsplit(url))
    app = is_app(url)  # apps accept OAuth only
    if not app and (token := os.environ.get("DATABRICKS_TOKEN")):
        _check_workspace(os.environ.get("DATABRICKS_HOST") or origin, origin)
        return token
    workspace = os.environ.get("DATABRICKS_HOST") or os.environ.get("DATABRICKS_CONFIG_PROFILE")
    needs_host = os.environ.get("DATABRICKS_CLIENT_ID") and not workspace
    try:
        client = _agent_client(origin if needs_host else None)
        if not app:
            _check_workspace(client.config.host, origin)
        elif client.config.auth_type == "pat":
            raise EndpointError(
                "An app accepts only OAuth, not a personal token. Set DATABRICKS_CLIENT_ID and "
                "DATABRICKS_CLIENT_SECRET, or a profile of `databricks auth login` in DATABRICKS_CONFIG_PROFILE.",
                "no_token",
                401,
            )
        return _token_of(client)
    except ConfigError as error:
        raise EndpointError(f"DATABRICKS_TOKEN isn't set. {error}", "no_token", 401) from None
    except (ValueError, OSError) as error:  # no credentials found, or rejected by the workspace
        raise EndpointError(f"{_describe_auth_error(error, origin)} {_HOW}", "no_token", 401) from None


def is_app(url: str) -> bool:
    """Return whether ``url`` is that of a Databricks App."""
    return (urlsplit(url).hostname or "").endswith(".databricksapps.com")


def _agent_client(host: str | None = None, quick: bool = False, renew: bool = False) -> WorkspaceClient:
    """Return the process's client with the environment's credentials; ``host`` if the environment names none."""
    key = (_identity(), host, quick)
    with _lock:
        if renew or any(identity != key[0] for identity, *_ in _clients):
            _clients.clear()
        if key not in _clients:
            _clients[key] = _build_client(quick, host)
        return _clients[key]


def _identity() -> str:
    """Return a hash of what the SDK takes credentials from: environment variables, and the file of profiles."""
    prefixes = ("DATABRICKS_", "ARM_", "GOOGLE_", "ACTIONS_ID_TOKEN_")
    parts = sorted(f"{name}={value}" for name, value in os.environ.items() if name.startswith(prefixes))
    file = Path(os.environ.get("DATABRICKS_CONFIG_FILE") or "~/.databrickscfg").expanduser()
    if file.is_file():
        parts.append(f"{file.stat().st_mtime_ns}")
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _build_client(quick: bool, host: str | None, token: str | None = None) -> WorkspaceClient:
    try:
        from databricks.sdk import WorkspaceClient
        from databricks.sdk.core import Config
    except ModuleNotFoundError:
        raise ConfigError('Databricks needs the extra: pip install "oneturn[databricks]"') from None
    # The constructor requests the host's metadata, which are optional: it must not wait for minutes.
    config = Config(
        host=host,
        token=token,
        auth_type="pat" if token else None,
        http_timeout_seconds=_SECONDS,
        retry_timeout_seconds=_SECONDS,
    )
    if not quick:
        config.http_timeout_seconds, config.retry_timeout_seconds = _REQUEST_SECONDS, _RETRY_SECONDS
    return WorkspaceClient(config=config)


def _token_of(client: WorkspaceClient) -> str:
    return str(client.config.authenticate()["Authorization"].removeprefix("Bearer "))


def _with_scheme(host: str) -> str:
    return host if "://" in host else f"https://{host}"


def _check_workspace(host: str, origin: str) -> None:
    if urlsplit(_with_scheme(host)).netloc != urlsplit(origin).netloc:
        raise EndpointError(
            f"The credentials belong to {host} and aren't sent to {origin}, which is another workspace. {_HOW}",
            "no_token",
            401,
        )


def _describe_auth_error(error: Exception, origin: str) -> str:
    message = first_line(error).rstrip(".")
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
        raise DeployError(f"{what}: {first_line(error)}") from error


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
        raise ToolError(first_line(error) or type(error).__name__) from error
    except OSError as error:
        raise ToolError(f"the workspace can't be reached ({type(error).__name__})") from error


def first_line(message: object) -> str:
    """Return the first line of an SDK error or message, without the stack trace and configuration that follow."""
    return next(iter(str(message).strip().splitlines()), "").partition(" Config: ")[0]
