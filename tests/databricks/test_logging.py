"""A logged agent declares what it needs, and is registered in Unity Catalog with an alias: the real MLflow client."""

from __future__ import annotations

import pytest
import yaml
from mlflow import MlflowClient

from oneturn import log_model
from oneturn.datasets.rows import dataset_hash
from oneturn.deployment.resources import auth_policy_of
from oneturn.errors import ConfigError
from oneturn.programs.state import Manifest, save_compiled
from oneturn.programs.state.interface import interface_of
from tests.databricks.conftest import MODEL, Desk

pytestmark = pytest.mark.xdist_group("databricks-logging")  # the module's workspace takes seconds


def compiled(desk: Desk) -> None:
    agent = desk.agent(compiled="desk_parts/compiled.json")
    sha256 = dataset_hash([example.toDict() for example in agent.examples("dev")])
    program = agent.build()
    manifest = Manifest(
        recipe="random_search",
        lm="databricks/claude",
        seed=0,
        created="2026-11-23T00:00:00+00:00",
        versions={},
        dataset={"train": sha256, "dev": sha256},
        scores={"before": {"score": 0.5}, "after": {"score": 0.75}},
        spend={},
        interface=interface_of(program),
    )
    save_compiled(program, manifest, agent.compiled_path)


def test_what_is_registered(desk: Desk):
    compiled(desk)
    logged = log_model(desk.agent(compiled="desk_parts/compiled.json"), register=True, alias="challenger")
    number = logged.registered_version
    assert desk.registry.aliases[MODEL, "challenger"] == number
    assert desk.registry.dependencies[MODEL, number] == [("DATABRICKS_MODEL_ENDPOINT", "claude")]
    files = desk.registry.files / "Models" / MODEL.replace(".", "/") / number
    declared = yaml.safe_load((files / "MLmodel").read_text())["auth_policy"]
    assert declared["system_auth_policy"]["resources"]["databricks"] == {"serving_endpoint": [{"name": "claude"}]}
    assert (files / "code" / "desk_parts" / "compiled.json").is_file()
    assert "dspy==" in (files / "requirements.txt").read_text()

    version = desk.registry.version(MODEL, number)
    assert version["run_id"] == logged.run_id
    client = MlflowClient("databricks")
    model = client.get_logged_model(version["model_id"])
    assert model.params["recipe"] == "random_search"
    score = next(metric for metric in model.metrics if metric.key == "dev_score")
    assert (score.value, score.dataset_name) == (0.75, "desk-dev")
    inputs = client.get_run(logged.run_id).inputs.dataset_inputs
    assert [found.dataset.digest for found in inputs] == [score.dataset_digest]


def test_an_alias_is_for_registered_versions(desk: Desk):
    with pytest.raises(ConfigError, match=r"'challenger' needs a registered version: add --register"):
        log_model(desk.agent(), alias="challenger")


def test_what_tools_of_ones_own_reach_is_declared_too(desk: Desk):
    named = [{"kind": "table", "name": "main.shop.orders"}, {"kind": "serving_endpoint", "name": "claude"}]
    policy = auth_policy_of(desk.agent(deploy={"resources": named}).config)
    assert policy is not None
    resources = policy.to_dict()["system_auth_policy"]["resources"]["databricks"]
    assert resources == {"serving_endpoint": [{"name": "claude"}], "table": [{"name": "main.shop.orders"}]}


def test_an_agent_on_a_laptop_declares_nothing(desk: Desk):
    assert auth_policy_of(desk.agent(lm={"model": "local/0.5B"}).config) is None
