"""Configure MLflow's tracking server and experiment, and reduce its logging."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
from pathlib import Path
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

import mlflow
from mlflow.exceptions import MlflowException
from sqlalchemy import make_url

from oneturn.config import MlflowConfig
from oneturn.core.terminal import can_redraw
from oneturn.errors import ConfigError

EXPERIMENT_VARIABLE = "MLFLOW_EXPERIMENT_ID"
_CONNECT_SECONDS = 10
_WORKSPACES = ("databricks", "databricks-uc", "uc")

# They log a line per table of a new database, and a notice at every exit that waits for a trace.
_VERBOSE_LOGGERS = (
    "alembic",
    "mlflow.store.db.utils",
    "mlflow.tracking.fluent",
    "mlflow.tracing.export.async_export_queue",
)


def use_tracking(settings: MlflowConfig, root: Path | None = None) -> None:
    """Use the configured tracking server and experiment for this process's traces, runs and models.

    In a Databricks App, the experiment is the one that the app may write to: ``MLFLOW_EXPERIMENT_ID``.

    Args:
        settings: the configuration's section.
        root: the agent's folder, which a relative file path is in, and the files of runs beside a database there;
            ``None`` for the working directory.
    """
    use_store(settings, root)
    experiment_id = os.environ.get(EXPERIMENT_VARIABLE) if "DATABRICKS_APP_NAME" in os.environ else None
    if experiment_id:
        mlflow.set_experiment(experiment_id=experiment_id)
        return
    is_elsewhere = root is not None and located(settings.tracking_uri, root) != settings.tracking_uri
    if root is not None and is_elsewhere and mlflow.get_experiment_by_name(settings.experiment) is None:
        files = root.resolve() / "mlruns" / quote(settings.experiment, safe="")  # MLflow puts them where it is started
        with contextlib.suppress(MlflowException):  # another process has created it
            mlflow.create_experiment(settings.experiment, artifact_location=files.as_uri())
    mlflow.set_experiment(settings.experiment)


def use_store(settings: MlflowConfig, root: Path | None = None) -> None:
    """Use the configured tracking server for reading; no experiment is created.

    Args:
        settings: the configuration's section.
        root: the agent's folder; see :func:`use_tracking`.

    Raises:
        ConfigError: nothing listens at its address. MLflow would try again for four minutes.
    """
    _check_address(settings.tracking_uri)
    for name in _VERBOSE_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    if not can_redraw():
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    mlflow.set_tracking_uri(located(settings.tracking_uri, root))


def located(uri: str, root: Path | None) -> str:
    """Return a tracking URI with the path of a file in ``root`` instead of a relative one; unchanged if that is the
    working directory, or ``None``."""
    if root is None or root.resolve() == Path.cwd() or uri.partition(":")[0] in _WORKSPACES:
        return uri
    scheme, _, path = uri.partition(":")
    if scheme.partition("+")[0] == "sqlite":
        url = make_url(uri)
        name = url.database or ""
        is_file = bool(name) and not name.startswith((":", "file:"))
        return url.set(database=str(root.resolve() / name)).render_as_string(hide_password=False) if is_file else uri
    if scheme == "file" and path and not path.startswith("/"):
        return (root.resolve() / path).as_uri()
    return str(root.resolve() / uri) if uri and ":" not in uri else uri


def _check_address(uri: str) -> None:
    """Connect to the server of a URL, unless that takes a proxy."""
    url = urlsplit(uri)
    if url.scheme not in ("http", "https") or not url.hostname:
        return
    if url.scheme in getproxies() and not proxy_bypass(url.hostname):
        return
    try:
        address = url.hostname, url.port or (443 if url.scheme == "https" else 80)
        socket.create_connection(address, timeout=_CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"The tracking server {without_credentials(uri)} can't be reached: {reason}. Start it, or set "
            "mlflow.tracking_uri."
        ) from error


def without_credentials(uri: str) -> str:
    """Return a tracking URI without user and password."""
    return re.sub(r"//[^/@]*@", "//", uri)
