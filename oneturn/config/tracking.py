"""Configure MLflow's tracking server and experiment, and reduce its logging."""

from __future__ import annotations

import logging
import os
import re
import socket
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import mlflow

from oneturn.config import MlflowConfig
from oneturn.core.terminal import can_redraw
from oneturn.errors import ConfigError

EXPERIMENT_VARIABLE = "MLFLOW_EXPERIMENT_ID"
_CONNECT_SECONDS = 10

# They log a line per table of a new database, and a notice at every exit that waits for a trace.
_VERBOSE_LOGGERS = (
    "alembic",
    "mlflow.store.db.utils",
    "mlflow.tracking.fluent",
    "mlflow.tracing.export.async_export_queue",
)


def use_tracking(settings: MlflowConfig) -> None:
    """Use the configured tracking server and experiment for this process's traces, runs and models.

    In a Databricks App, the experiment is the one that the app may write to: ``MLFLOW_EXPERIMENT_ID``.
    """
    use_store(settings)
    experiment_id = os.environ.get(EXPERIMENT_VARIABLE) if "DATABRICKS_APP_NAME" in os.environ else None
    if experiment_id:
        mlflow.set_experiment(experiment_id=experiment_id)
    else:
        mlflow.set_experiment(settings.experiment)


def use_store(settings: MlflowConfig) -> None:
    """Use the configured tracking server for reading; no experiment is created.

    Raises:
        ConfigError: nothing listens at its address. MLflow would try again for four minutes.
    """
    _check_address(settings.tracking_uri)
    for name in _VERBOSE_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    if not can_redraw():
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    mlflow.set_tracking_uri(settings.tracking_uri)


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
