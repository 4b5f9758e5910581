"""Configure MLflow's tracking server and experiment, and reduce its logging."""

from __future__ import annotations

import logging
import os
import re

import mlflow

from oneturn.config import MlflowConfig
from oneturn.core.terminal import can_redraw

EXPERIMENT_VARIABLE = "MLFLOW_EXPERIMENT_ID"

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
    """Use the configured tracking server for reading; no experiment is created."""
    for name in _VERBOSE_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    if not can_redraw():
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    mlflow.set_tracking_uri(settings.tracking_uri)


def without_credentials(uri: str) -> str:
    """Return a tracking URI without user and password."""
    return re.sub(r"//[^/@]*@", "//", uri)
