"""An agent as a Databricks App: what is uploaded serves it; the real SDK on a stand-in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import httpx
import mlflow
import pytest
import yaml
from databricks.sdk.service.apps import (
    AppResource,
    AppResourceDatabase,
    AppResourceDatabaseDatabasePermission,
    AppResourceSecret,
    AppResourceSecretSecretPermission,
    ComputeState,
    ComputeStatus,
)

from oneturn.deployment.databricks.apps import deploy_app, plan_app
from oneturn.deployment.databricks.rollback import plan_app_rollback, roll_back_app
from oneturn.errors import DeployError
from tests.databricks.app_routes import Apps
from tests.databricks.conftest import Desk

pytestmark = pytest.mark.xdist_group("databricks-apps")  # the module's workspace takes seconds

ENVIRONMENT = {"LANGUAGE": "en", "DESK_API_KEY": "{{secrets/desk/key}}"}
CAN_CONNECT = AppResourceDatabaseDatabasePermission.CAN_CONNECT_AND_CREATE
FEW = {"app.py": b"", "app.yaml": b""}


@pytest.fixture
def apps(desk: Desk) -> Apps:
    mlflow.set_tracking_uri("databricks")
    return Apps(desk.workspace)


def deploy(desk: Desk) -> list[str]:
    messages: list[str] = []
    plan = plan_app(desk.agent(deploy={"environment": ENVIRONMENT}))
    deploy_app(replace(plan, files=FEW), messages.append)
    return messages


def test_the_plan_lists_the_resources_of_the_app(desk: Desk, apps: Apps):
    plan = plan_app(desk.agent(deploy={"environment": ENVIRONMENT}))
    assert plan.source.startswith("/Workspace/Users/owner@example.com/apps/desk/")
    assert "It can access: serving endpoint claude: CAN_QUERY" in plan.lines()
    assert "It can access: secret key: READ" in plan.lines()
    assert {call.method for call in desk.workspace.calls} == {"GET"}, "nothing is changed"


def test_a_new_app_gets_its_resources_and_its_files(desk: Desk, apps: Apps):
    plan = plan_app(desk.agent(deploy={"environment": ENVIRONMENT}))
    done = deploy_app(plan, lambda line: None)
    assert done.url == "https://desk-17.aws.databricksapps.com"
    assert [resource.name for resource in apps.apps["desk"].resources] == [
        "serving-endpoint-1",
        "desk-api-key",
        "traces",
    ]
    assert apps.deployments["desk"][0].source_code_path == plan.source
    assert apps.files == {f"{plan.source}/{path}": content for path, content in plan.files.items()}
    manifest = yaml.safe_load(plan.files["app.yaml"])
    assert manifest["env"][1:] == [
        {"name": "MLFLOW_EXPERIMENT_ID", "valueFrom": "traces"},
        {"name": "LANGUAGE", "value": "en"},
        {"name": "DESK_API_KEY", "valueFrom": "desk-api-key"},
    ]
    assert "dspy==" in plan.files["requirements.txt"].decode()


def test_an_app_needs_the_variables_of_its_server(desk: Desk, apps: Apps):
    serve = {"store_env": "STORE", "api_key_env": "SERVE_KEY"}
    with pytest.raises(DeployError) as refused:
        plan_app(desk.agent(serve=serve))
    assert "serve.store_env: it names STORE, which isn't set in the deployment." in str(refused.value)
    assert "Add to deploy.environment: SERVE_KEY: '{{secrets/<scope>/<key>}}'" in str(refused.value)
    variables = dict.fromkeys(serve.values(), "{{secrets/desk/key}}")
    assert plan_app(desk.agent(serve=serve, deploy={"environment": variables})).files


def test_resources_that_others_attached_stay(desk: Desk, apps: Apps):
    deploy(desk)
    database = AppResourceDatabase(instance_name="lakebase", database_name="answers", permission=CAN_CONNECT)
    old = AppResourceSecret("desk", "old", AppResourceSecretSecretPermission.READ)
    attached = apps.apps["desk"].resources
    attached += [AppResource("database", database=database), AppResource("old-key", secret=old)]
    lines = plan_app(desk.agent(deploy={"environment": ENVIRONMENT})).lines()
    changes = [line for line in lines if line.startswith(("It keeps", "It loses"))]
    assert changes == [
        "It keeps access to: database answers: CAN_CONNECT_AND_CREATE",
        "It loses access to: secret old: READ",
    ]
    deploy(desk)
    assert [resource.name for resource in apps.apps["desk"].resources] == [
        "serving-endpoint-1",
        "desk-api-key",
        "traces",
        "database",
    ]


def test_a_stopped_app_is_started_by_a_deployment(desk: Desk, apps: Apps):
    deploy(desk)
    apps.apps["desk"].compute_status = ComputeStatus(state=ComputeState.STOPPED)
    assert "Starting the app's compute." in deploy(desk)
    assert len(apps.deployments["desk"]) == 2


def test_an_app_that_does_not_start_tells_why(desk: Desk, apps: Apps):
    apps.failing = "Error installing packages: no matching distribution."
    with pytest.raises(DeployError, match=r"The app desk doesn't start: .*no matching distribution\."):
        deploy(desk)


def deployed_from(desk: Desk, source: str) -> None:
    deploy_app(replace(plan_app(desk.agent()), source=source, files=FEW), lambda line: None)


def test_an_app_goes_back_to_the_files_that_ran_before(desk: Desk, apps: Apps):
    with pytest.raises(DeployError, match="no earlier deployment"):
        plan_app_rollback(desk.agent())
    for hour in ("T10", "T11"):
        deployed_from(desk, f"/Workspace/apps/desk/{hour}")
    apps.failing = "broken"
    with pytest.raises(DeployError):
        deployed_from(desk, "/Workspace/apps/desk/T12")
    apps.failing = ""
    plan = plan_app_rollback(desk.agent())
    assert (plan.current, plan.target) == ("/Workspace/apps/desk/T11", "/Workspace/apps/desk/T10")
    roll_back_app(plan)
    assert apps.deployments["desk"][0].source_code_path == "/Workspace/apps/desk/T10"
    with pytest.raises(DeployError, match="no earlier deployment"):
        plan_app_rollback(desk.agent())


def test_the_uploaded_files_serve_the_agent(desk: Desk, apps: Apps, tmp_path: Path, unused_port: int):
    files = plan_app(desk.agent()).files
    for path, content in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    manifest = yaml.safe_load(files["app.yaml"])
    given = {entry["name"]: entry["value"] for entry in manifest["env"] if "value" in entry}
    given |= {"DATABRICKS_APP_PORT": str(unused_port)}
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, *manifest["command"][1:]]
    with subprocess.Popen(command, cwd=tmp_path, env=kept | given, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert any("Serving at" in line for line in process.stderr)
            body = {"input": [{"role": "user", "content": "Is it open?"}]}
            found = httpx.post(f"http://127.0.0.1:{unused_port}/responses", json=body, timeout=60).json()
        finally:
            process.terminate()
    assert "Good morning. It is open." in json.dumps(found)
