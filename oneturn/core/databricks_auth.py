"""Who asks the workspace: the agent itself, or the user who asks the agent."""

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


def workspace_token(credentials: Who, renew: bool = False) -> tuple[str, str]:
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


_HOW = (
    "Set DATABRICKS_TOKEN; or DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET; or DATABRICKS_CONFIG_PROFILE, which "
    "names a profile of ~/.databrickscfg."
)
_bearer_configs: dict[tuple[str, ...], Config] = {}


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
        config = _bearer_config(origin)
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


def _bearer_config(origin: str) -> Config:
    """The SDK's credentials, kept while the environment stays the same: each of them renews its own tokens."""
    from databricks.sdk.core import Config

    key = (origin, *(f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith("DATABRICKS_")))
    with _lock:
        if key not in _bearer_configs:
            named = os.environ.get("DATABRICKS_HOST") or os.environ.get("DATABRICKS_CONFIG_PROFILE")
            own = os.environ.get("DATABRICKS_CLIENT_ID") and not named
            _bearer_configs[key] = Config(host=origin) if own else Config()
        return _bearer_configs[key]


def _refusal(error: Exception, origin: str) -> str:
    """What went wrong, without what the SDK adds of the configuration."""
    said = str(error).splitlines()[0].partition(" Config: ")[0].rstrip(".")
    if "cannot configure default credentials" in said:
        return f"There are no credentials for {origin}."
    return f"The credentials for {origin} don't hold: {said}."


@contextmanager
def as_deploy_error(what: str) -> Iterator[None]:
    """Turn what the SDKs raise meanwhile into a ``DeployError``; a decorator, too.

    Args:
        what: what can't be done then.

    Raises:
        DeployError: there are no credentials, or Databricks refuses something; says what it says.
        ConfigError: the extra isn't installed.
    """
    try:
        from databricks.sdk.errors.base import DatabricksError
    except ModuleNotFoundError:
        raise ConfigError('Databricks needs the extra: pip install "oneturn[databricks]"') from None
    try:
        yield
    except (DatabricksError, MlflowException, ValueError) as error:
        said = str(error).strip().splitlines()[0].partition(" Config: ")[0]
        raise DeployError(f"{what}: {said}") from error


def client_factory(credentials: Who) -> Callable[[], WorkspaceClient]:
    """What gives the client of a call: the agent's is kept, that of the user who asks is made for each call."""

    lock = threading.Lock()
    kept: list[WorkspaceClient] = []

    def client() -> WorkspaceClient:
        if credentials == "user":
            return workspace_client("user")
        with lock:
            if not kept:
                kept.append(workspace_client("agent"))
            return kept[0]

    return client


@contextmanager
def as_tool_error() -> Iterator[None]:
    """Turn what the workspace refuses into a line that the LM reads.

    Raises:
        ToolError: it refuses something, or can't be reached.
    """
    from databricks.sdk.errors.base import DatabricksError

    try:
        yield
    except DatabricksError as error:
        raise ToolError(first_line(str(error)) or type(error).__name__) from error
    except OSError as error:
        raise ToolError(f"the workspace can't be reached ({type(error).__name__})") from error


def first_line(text: str) -> str:
    """What is said first; the rest is stack traces and configuration."""
    return next(iter(text.strip().splitlines()), "").partition(" Config: ")[0]


def pause(seconds: float) -> None:
    """Wait, no longer than the run may go on.

    Raises:
        RunCancelled: the run has to stop.
    """
    control, stopped = current_run(), threading.Event()
    with control.waking(stopped.set):
        left = control.remaining()
        stopped.wait(seconds if left is None else min(seconds, left))
    control.check()
