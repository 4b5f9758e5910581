"""Point MLflow at the configured store and experiment, without its chatter."""

from __future__ import annotations

import logging
import re

import mlflow

from oneturn.config import MlflowConfig

# One line for each table of a new database; and a warning-like notice at every exit that waits for a trace.
_CHATTY = ("alembic", "mlflow.store.db.utils", "mlflow.tracking.fluent", "mlflow.tracing.export.async_export_queue")


def use_tracking(settings: MlflowConfig) -> None:
    """Send this process's traces, runs and models to the configured tracking server and experiment."""
    use_store(settings)
    mlflow.set_experiment(settings.experiment)


def use_store(settings: MlflowConfig) -> None:
    """Read from the configured tracking server; nothing is made there, not even the experiment."""
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    mlflow.set_tracking_uri(settings.tracking_uri)


def shown(uri: str) -> str:
    """A tracking URI without the user and password that it may hold."""
    return re.sub(r"//[^/@]*@", "//", uri)
