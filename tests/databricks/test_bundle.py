"""The bundle for CI/CD: known fields only, and a release that runs its commands in its own folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from databricks.sdk.service.apps import App
from databricks.sdk.service.jobs import JobSettings
from typer.testing import CliRunner

from oneturn.cli import app
from oneturn.deployment.databricks.bundle import write_bundle
from oneturn.errors import DeployError
from tests.databricks.conftest import MODEL, Desk
from tests.databricks.workspace import _unknown

pytestmark = pytest.mark.xdist_group("databricks-bundle")  # the module's workspace takes seconds


@pytest.fixture
def bundle(desk: Desk, tmp_path: Path) -> Path:
    prod = desk.agent(deploy={"environment": {"DESK_API_KEY": "{{secrets/desk/key}}"}})
    write_bundle({"dev": desk.agent(lm={"model": "databricks/small"}), "prod": prod}, tmp_path / "bundle")
    return tmp_path / "bundle"


def test_its_fields_are_known_to_the_sdk(bundle: Path):
    written = yaml.safe_load((bundle / "databricks.yml").read_text())
    assert written.keys() == {"bundle", "targets"}
    for target in written["targets"].values():
        assert target.keys() <= {"mode", "default", "workspace", "resources"}
        job, app = target["resources"]["jobs"]["release"], target["resources"]["apps"]["agent"]
        assert _unknown(job, JobSettings.from_dict(job).as_dict()) == []
        app.pop("source_code_path")  # the bundle's own
        assert _unknown(app, App.from_dict(app).as_dict()) == []


def test_each_target_has_its_own_folder_and_what_it_names_is_there(bundle: Path):
    written = yaml.safe_load((bundle / "databricks.yml").read_text())["targets"]
    models = {}
    for name, target in written.items():
        tasks = target["resources"]["jobs"]["release"]["tasks"]
        assert [task["task_key"] for task in tasks] == ["log", "promote", "deploy"]
        assert all((bundle / task["spark_python_task"]["python_file"]).is_file() for task in tasks)
        folder = bundle / target["resources"]["apps"]["agent"]["source_code_path"]
        assert (folder / "app.yaml").is_file()
        models[name] = yaml.safe_load((folder / "oneturn.yaml").read_text())["lm"]["model"]
    assert models == {"dev": "databricks/small", "prod": "databricks/claude"}
    assert (written["dev"]["mode"], written["prod"]["mode"]) == ("development", "production")
    names = [resource["name"] for resource in written["prod"]["resources"]["apps"]["agent"]["resources"]]
    assert names == ["serving-endpoint-1", "desk-api-key", "traces"]


def test_the_app_may_write_to_its_experiment(bundle: Path, desk: Desk):
    for name, target in yaml.safe_load((bundle / "databricks.yml").read_text())["targets"].items():
        resources = target["resources"]
        assert resources["experiments"] == {"traces": {"name": desk.agent().config.mlflow.experiment}}
        (traces,) = [each for each in resources["apps"]["agent"]["resources"] if each["name"] == "traces"]
        experiment_id = "${resources.experiments.traces.id}"
        assert traces["experiment"] == {"experiment_id": experiment_id, "permission": "CAN_EDIT"}
        variables = yaml.safe_load((bundle / name / "app.yaml").read_text())["env"]
        assert {"name": "MLFLOW_EXPERIMENT_ID", "valueFrom": "traces"} in variables


RELEASE = """
import json, runpy, sys

for parameters in json.loads(sys.argv[1]):
    sys.argv = ["release.py", *parameters]
    runpy.run_path("release.py", run_name="__main__")
"""


def test_the_steps_of_the_release_log_promote_and_deploy(bundle: Path, desk: Desk):
    done = release(bundle)
    assert done.returncode == 0, done.stderr
    assert desk.registry.aliases == {(MODEL, "challenger"): "1", (MODEL, "champion"): "1"}
    assert desk.endpoints.traffic("agents_main-agents-desk") == {"1": 100}


def test_a_step_that_fails_fails_the_release(bundle: Path, desk: Desk):
    desk.registry.versions.clear()
    done = release(bundle, only="deploy")
    assert done.returncode == 1
    assert "There is no registered model 'main.agents.desk'" in done.stderr
    assert "oneturn deploy serving --config oneturn.yaml failed with exit code 1" in done.stderr


def release(bundle: Path, only: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the tasks of the release job, in one process of their own, with the bundle's folder as the job's."""
    job = yaml.safe_load((bundle / "databricks.yml").read_text())["targets"]["prod"]["resources"]["jobs"]["release"]
    tasks = [task for task in job["tasks"] if only in (None, task["task_key"])]
    parameters = [[str(bundle / "prod"), *task["spark_python_task"]["parameters"][1:]] for task in tasks]
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MLFLOW_TRACKING_URI")}
    command = [sys.executable, "-c", RELEASE, json.dumps(parameters)]
    return subprocess.run(command, cwd=bundle / "prod", env=kept, capture_output=True, text=True, check=False)


def test_it_overwrites_no_folder_of_yours(desk: Desk, tmp_path: Path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DeployError, match="has files that aren't a bundle"):
        write_bundle({"prod": desk.agent()}, tmp_path)


def test_the_command_writes_it(desk: Desk, tmp_path: Path):
    desk.agent()
    config = str(desk.folder / "config.yaml")
    command = ["deploy", "bundle", str(tmp_path / "out"), "--agent", str(desk.folder / "agent.py"), "--prod", config]
    output = CliRunner().invoke(app, [*command, "--dry-run"]).output
    assert yaml.safe_load(output)["targets"].keys() == {"dev", "prod"}
    assert not (tmp_path / "out").exists()
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert f"cd {tmp_path / 'out'} && databricks bundle validate --target prod" in result.output
    assert (tmp_path / "out" / "dev" / "app.yaml").is_file()
