"""MLflow's tracking API in the stand-in of a workspace: a real MLflow server, with files in a folder of the test's."""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.parse import urlencode

import pytest
from mlflow.server import app, handlers
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from tests.databricks.workspace import Answer, Call, Workspace

_TRACKING = r"/api/[234]\.0/mlflow/(?!unity-catalog).*"


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of MLflow's without runs: making one takes seconds, a copy doesn't."""
    path = tmp_path_factory.mktemp("store") / "empty.db"
    SqlAlchemyStore(f"sqlite:///{path}", str(path.parent)).engine.dispose()
    return path


def keep_tracking(workspace: Workspace, folder: Path, empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the workspace keep experiments, runs, logged models and traces."""
    (folder / "artifacts").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(empty, folder / "workspace.db")
    store = SqlAlchemyStore(f"sqlite:///{folder}/workspace.db", str(folder / "artifacts"))
    monkeypatch.setattr(handlers, "_tracking_store", store)

    def ask(call: Call) -> Answer:
        path = f"{call.path}?{urlencode(call.query)}"
        content = call.headers.get("content-type", "application/json")
        sent = {"data": call.body} if isinstance(call.body, bytes) else {"json": call.body}
        given = app.test_client().open(path, method=call.method, content_type=content, **sent)
        return Answer(given.status_code, given.data, {"Content-Type": given.content_type, "X-Databricks-Org-Id": "17"})

    for method in ("GET", "POST", "PATCH", "DELETE"):
        workspace.on(method, _TRACKING, ask)
