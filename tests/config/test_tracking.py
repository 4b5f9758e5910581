"""MLflow's output outside a terminal."""

from __future__ import annotations

import os
from pathlib import Path

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


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("sqlite:///mlflow.db", "sqlite:///{root}/mlflow.db"),
        ("sqlite:///data/mlflow.db?timeout=5", "sqlite:///{root}/data/mlflow.db?timeout=5"),
        ("mlruns", "{root}/mlruns"),
        ("file:mlruns", "file://{root}/mlruns"),
        ("file:///var/mlruns", "file:///var/mlruns"),
        ("sqlite:////var/mlflow.db", "sqlite:////var/mlflow.db"),
        ("sqlite://", "sqlite://"),
        ("http://localhost:5000", "http://localhost:5000"),
        ("postgresql://me@host/mlflow", "postgresql://me@host/mlflow"),
        ("databricks", "databricks"),
        ("databricks://profile", "databricks://profile"),
    ],
)
def test_relative_files_are_in_the_agent_s_folder(
    uri: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert tracking.located(uri, tmp_path) == expected.format(root=tmp_path.resolve())
    assert tracking.located(uri, None) == uri
    monkeypatch.chdir(tmp_path)
    assert tracking.located(uri, tmp_path) == uri, "where nothing changes"


def test_runs_of_an_agent_in_another_folder_are_stored_there(
    traced: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    root, here = tmp_path / "agent", tmp_path / "here"
    root.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)
    before = mlflow.get_tracking_uri()
    try:
        tracking.use_tracking(MlflowConfig(experiment="/Shared/mine"), root)
        with mlflow.start_run():
            mlflow.log_text("x", "note.txt")
    finally:
        mlflow.set_tracking_uri(before)
    assert (root / "mlflow.db").is_file()
    assert len(list(root.glob("mlruns/**/note.txt"))) == 1
    assert not list(here.iterdir())
