"""MLflow's output outside a terminal."""

from __future__ import annotations

import os

import mlflow
import pytest

from oneturn.config import MlflowConfig, tracking


@pytest.mark.parametrize("terminal", [False, True])
def test_mlflow_draws_no_bars_outside_a_terminal(terminal: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "")
    monkeypatch.delenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR")
    monkeypatch.setattr(tracking, "can_redraw", lambda: terminal)
    tracking.use_store(MlflowConfig(tracking_uri=mlflow.get_tracking_uri()))
    assert os.environ.get("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR") == (None if terminal else "false")
