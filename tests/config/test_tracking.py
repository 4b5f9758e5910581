"""MLflow's output outside a terminal."""

from __future__ import annotations

import os

import mlflow
import pytest

from oneturn.config import MlflowConfig, tracking
from oneturn.errors import ConfigError


@pytest.mark.parametrize("terminal", [False, True])
def test_mlflow_draws_no_bars_outside_a_terminal(terminal: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "")
    monkeypatch.delenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR")
    monkeypatch.setattr(tracking, "can_redraw", lambda: terminal)
    tracking.use_store(MlflowConfig(tracking_uri=mlflow.get_tracking_uri()))
    assert os.environ.get("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR") == (None if terminal else "false")


def test_an_app_uses_the_experiment_that_it_may_write_to(traced: None, monkeypatch: pytest.MonkeyPatch):
    settings = MlflowConfig(tracking_uri=mlflow.get_tracking_uri(), experiment="configured")
    granted = mlflow.set_experiment("granted to the app").experiment_id
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", granted)
    monkeypatch.delenv("DATABRICKS_APP_NAME", raising=False)
    tracking.use_tracking(settings)
    assert mlflow.get_experiment_by_name("configured") is not None, "elsewhere the configuration names it"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", granted)  # MLflow sets it for child processes
    monkeypatch.setenv("DATABRICKS_APP_NAME", "desk")
    tracking.use_tracking(settings)
    with mlflow.start_run() as run:
        assert run.info.experiment_id == granted


def test_a_tracking_server_that_is_down_is_reported_at_once(free_tcp_port: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    before = mlflow.get_tracking_uri()
    down = MlflowConfig(tracking_uri=f"http://user:pass@127.0.0.1:{free_tcp_port}")
    with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{free_tcp_port} can.t be reached: Connection refused"):
        tracking.use_tracking(down)
    with pytest.raises(ConfigError, match=r"can't be reached: "):
        tracking.use_tracking(MlflowConfig(tracking_uri="http://no-such-host.invalid"))
    assert mlflow.get_tracking_uri() == before
