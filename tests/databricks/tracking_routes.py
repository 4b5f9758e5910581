"""MLflow's tracking API in the stand-in of a workspace: a real MLflow server, with files in a folder of the test's."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlencode

import pytest
from mlflow.server import app, handlers
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from tests.databricks.workspace import Answer, Call, Workspace

_TRACKING = r"/api/[234]\.0/mlflow/(?!unity-catalog).*"


def keep_tracking(workspace: Workspace, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the workspace keep experiments, runs, logged models and traces."""
    (folder / "artifacts").mkdir(parents=True, exist_ok=True)
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
