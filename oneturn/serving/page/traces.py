"""The traces of a server: the tag that marks them, and where MLflow shows them."""

from __future__ import annotations

import os

import mlflow
from mlflow.utils.uri import is_databricks_uri

from oneturn.config.tracking import EXPERIMENT_VARIABLE, without_credentials

SERVED_BY = "oneturn.served_by"
"""The tag of a request's trace: the name of the agent that a server of ours answered for, the same for all replicas."""


def trace_url_template() -> str | None:
    """Return the URL of a trace in MLflow's UI, with ``{trace_id}`` for its id; ``None`` if there is no such UI.

    The experiment is the active one, which MLflow keeps in an environment variable; Databricks Apps set the host.
    """
    uri, experiment = mlflow.get_tracking_uri(), os.environ.get(EXPERIMENT_VARIABLE)
    if not experiment:
        return None
    path = f"experiments/{experiment}/traces?selectedEvaluationId={{trace_id}}"
    if uri.startswith(("http://", "https://")):
        return f"{without_credentials(uri).rstrip('/')}/#/{path}"
    if is_databricks_uri(uri) and (host := os.environ.get("DATABRICKS_HOST", "").strip("/ ")):
        return f"https://{host.removeprefix('https://')}/ml/{path}"
    return None
