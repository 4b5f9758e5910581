"""A workspace that keeps runs, models and endpoints, with an agent of which versions can be registered."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pytest

import oneturn
from oneturn.agent import Agent
from tests.databricks.catalog_routes import Catalog
from tests.databricks.registry_routes import Registry
from tests.databricks.serving_routes import Endpoints
from tests.databricks.tracking_routes import empty_store, keep_tracking
from tests.databricks.workspace import OWNER, TOKEN, Workspace

__all__ = ["empty_store"]

MODEL = "main.agents.desk"
CONFIG = {
    "lm": {"model": "databricks/claude"},
    "mlflow": {"tracking_uri": "databricks", "experiment": "/Shared/desk", "model_name": MODEL},
}


@dataclass
class Desk:
    """A workspace, and an agent in a folder beside it."""

    workspace: Workspace
    registry: Registry
    endpoints: Endpoints
    folder: Path

    def agent(self, **sections: Any) -> Agent:
        """The agent, with sections of its configuration changed."""
        (self.folder / "config.yaml").write_text(json.dumps(CONFIG | sections))
        forget()
        return oneturn.load_agent(self.folder / "agent.py", self.folder / "config.yaml")


@pytest.fixture(scope="module")
def workspace_with_models(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Desk]:
    """A workspace in which a module's tests register models; each log costs seconds."""
    folder = tmp_path_factory.mktemp("desk")
    shutil.copytree(Path(__file__).parent / "desk", folder / "desk")
    patch = pytest.MonkeyPatch()
    tracking = mlflow.tracking._tracking_service.utils, mlflow.tracking._model_registry.utils
    with Workspace() as workspace:
        for name, value in {"DATABRICKS_HOST": workspace.host, "DATABRICKS_TOKEN": TOKEN}.items():
            patch.setenv(name, value)
        patch.setenv("MLFLOW_TRACKING_URI", "databricks")
        patch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        patch.setattr(tracking[0], "_tracking_uri", None)
        patch.setattr(tracking[1], "_registry_uri", None)
        patch.setattr("mlflow.tracking.fluent._active_experiment_id", None)
        patch.setattr(sys, "path", [str(folder / "desk"), *sys.path])
        patch.setitem(sys.modules, "agent", None)
        patch.chdir(folder)
        keep_tracking(workspace, folder / "tracking", empty_store, patch)
        registry = Registry(workspace, folder / "catalog")
        catalog = Catalog(workspace)
        catalog.add("models", MODEL, owner=OWNER)
        catalog.add("folders", "/Shared")
        catalog.add("schemas", MODEL.rpartition(".")[0])
        catalog.secrets["desk"] = ["key"]
        yield Desk(workspace, registry, Endpoints(workspace), folder / "desk")
    forget()
    patch.undo()


@pytest.fixture
def desk(workspace_with_models: Desk) -> Desk:
    """The workspace without endpoints and calls, with the models that the module's tests have registered."""
    workspace_with_models.endpoints = Endpoints(workspace_with_models.workspace)
    workspace_with_models.endpoints.add_ready("claude")
    workspace_with_models.workspace.calls.clear()
    return workspace_with_models


def forget() -> None:
    """Let the agent's own module be imported anew."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "desk_parts"]:
        del sys.modules[name]


@pytest.fixture
def unused_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
