"""From a registered version to an endpoint and back: the real databricks-agents, MLflow and SDK on a stand-in."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from oneturn import log_model
from oneturn.cli import app
from oneturn.deployment import promote
from oneturn.deployment.databricks.endpoint import endpoint_name
from oneturn.deployment.databricks.model_serving import deploy_serving, plan_serving
from oneturn.deployment.databricks.rollback import plan_rollback, roll_back
from oneturn.errors import DeployError
from tests.databricks.conftest import MODEL, Desk

pytestmark = pytest.mark.xdist_group("databricks-deploying")  # the module's workspace takes seconds

ENDPOINT = "agents_main-agents-desk"
KEY = "{{secrets/desk/key}}"


@pytest.fixture(scope="module")
def _registered(workspace_with_models: Desk) -> None:
    log_model(workspace_with_models.agent(), register=True)
    for _ in range(2):
        workspace_with_models.registry.duplicate(MODEL, "1")


@pytest.fixture
def desk(desk: Desk, _registered: None) -> Desk:
    desk.registry.aliases.clear()
    for version in desk.registry.versions.values():
        version.ClearField("tags")
    return desk


def deploy(desk: Desk, version: str, **settings: object) -> list[str]:
    messages: list[str] = []
    deploy_serving(plan_serving(desk.agent(deploy=settings), version), messages.append)
    return messages


def test_the_first_deployment_makes_the_endpoint(desk: Desk):
    plan = plan_serving(desk.agent(deploy={"environment": {"LANGUAGE": "en"}, "scale_to_zero": True}))
    assert (plan.version, plan.chosen) == ("3", "the latest; no version has the alias champion")
    assert desk.workspace.asked("POST", ".*endpoints") == [], "a plan changes nothing"
    done = deploy_serving(plan, lambda line: None)
    assert done.url == f"{desk.workspace.host}/serving-endpoints/{ENDPOINT}"
    assert done.review_app.endswith(f"/ml/review-v2/chat?endpoint={ENDPOINT}")
    assert desk.endpoints.traffic(ENDPOINT) == {"3": 100}
    served = desk.endpoints.entity(ENDPOINT, "3")
    assert (served.scale_to_zero_enabled, served.workload_size) == (True, "Small")
    assert served.environment_vars["LANGUAGE"] == "en"
    assert served.environment_vars["MLFLOW_EXPERIMENT_ID"] == "1", "where its traces go"


def test_the_champion_is_deployed_if_there_is_one(desk: Desk):
    desk.registry.aliases[MODEL, "champion"] = "2"
    plan = plan_serving(desk.agent())
    assert (plan.version, plan.chosen) == ("2", "champion")


def test_a_version_that_was_promoted_is_deployed(desk: Desk):
    assert promote(desk.agent(), 2).moved
    assert desk.registry.aliases[MODEL, "champion"] == "2"
    assert plan_serving(desk.agent()).chosen == "champion"


def test_another_alias_or_a_number_can_be_asked_for(desk: Desk):
    desk.registry.aliases[MODEL, "challenger"] = "1"
    assert plan_serving(desk.agent(), "challenger").version == "1"
    assert plan_serving(desk.agent(), "2").version == "2"
    with pytest.raises(DeployError, match="has the alias 'best'"):
        plan_serving(desk.agent(), "best")


def test_a_redeployment_carries_the_environment_over(desk: Desk):
    deploy(desk, "1", environment={"LANGUAGE": "en", "DESK_API_KEY": KEY})
    plan = plan_serving(desk.agent(deploy={"environment": {"DESK_API_KEY": KEY}}), "2")
    assert plan.lost == ("LANGUAGE",)
    assert plan.lines()[-1] == (
        "Set on the endpoint, but not in deploy.environment: LANGUAGE. The new version won't have them."
    )
    deploy_serving(plan, lambda line: None)
    assert desk.endpoints.traffic(ENDPOINT) == {"1": 0, "2": 100}
    environment = desk.endpoints.entity(ENDPOINT, "2").environment_vars
    assert (environment["DESK_API_KEY"], "LANGUAGE" in environment) == (KEY, False)


def test_a_failed_build_reports_its_cause_and_keeps_the_old_version(desk: Desk):
    deploy(desk, "1")
    log_of_the_build = "\n".join([*(f"line {number}" for number in range(20)), "ERROR: No matching distribution"])
    desk.endpoints.failing["main-agents-desk_2"] = ("Container image creation failed.", log_of_the_build)
    with pytest.raises(DeployError) as failure:
        deploy(desk, "2")
    lines = str(failure.value).splitlines()
    assert lines[0] == f"Version 2 doesn't start on {ENDPOINT}: Container image creation failed."
    assert lines[-1].strip() == "ERROR: No matching distribution"
    assert "line 1" not in str(failure.value).split()
    assert desk.endpoints.traffic(ENDPOINT) == {"1": 100}


def test_state_changes_of_the_endpoint_are_reported(desk: Desk):
    plan = plan_serving(desk.agent(), "1")
    desk.endpoints.waiting = ["Container image creation in progress."]
    messages: list[str] = []
    deploy_serving(plan, messages.append)
    assert messages[1:] == ["version 1: Container image creation in progress."]


def test_keep_removes_old_versions_from_the_endpoint(desk: Desk):
    for version in ("1", "2"):
        deploy(desk, version)
    messages = deploy(desk, "3", keep=1)
    assert messages[-1] == "Removing version 1 from the endpoint."
    assert desk.endpoints.traffic(ENDPOINT) == {"3": 100, "2": 0}, "a rollback goes to version 2"
    assert [found["model_version"] for found in desk.endpoints.deployments] == ["2", "3"]


def test_no_version_is_removed_while_an_older_one_is_deployed(desk: Desk):
    for version in ("1", "3"):
        deploy(desk, version)
    assert (
        deploy(desk, "2", keep=1)[-1] == "Version 2 isn't the newest on the endpoint; no version is removed (3, 2, 1)."
    )
    assert desk.endpoints.traffic(ENDPOINT) == {"2": 100, "3": 0, "1": 0}


def test_a_version_on_the_endpoint_is_updated_without_a_build(desk: Desk):
    deploy(desk, "1", environment={"LANGUAGE": "en"})
    deploy(desk, "2")
    messages = deploy(desk, "1", environment={"LANGUAGE": "fr"}, workload_size="Medium")
    assert messages == ["The endpoint already has this version; no build is needed."]
    assert desk.endpoints.traffic(ENDPOINT) == {"1": 100, "2": 0}
    served = desk.endpoints.entity(ENDPOINT, "1")
    assert (served.environment_vars["LANGUAGE"], served.workload_size) == ("fr", "Medium")
    assert served.environment_vars["MLFLOW_EXPERIMENT_ID"] == "1", "where its traces go"
    assert plan_rollback(desk.agent()).target == "2", "what it has replaced"


def test_the_version_that_is_served_can_get_other_settings(desk: Desk):
    deploy(desk, "2")
    plan = plan_serving(desk.agent(deploy={"scale_to_zero": True}), "2")
    assert "as now, with the settings below" in plan.lines()[0]
    deploy_serving(plan, lambda line: None)
    assert desk.endpoints.entity(ENDPOINT, "2").scale_to_zero_enabled is True


def test_a_plan_only_reads(desk: Desk):
    deploy(desk, "1")
    deploy(desk, "2")
    desk.workspace.calls.clear()
    elsewhere = desk.agent(mlflow={"tracking_uri": "databricks", "experiment": "/Shared/new", "model_name": MODEL})
    plan_serving(elsewhere)
    plan_rollback(elsewhere)
    assert {call.method for call in desk.workspace.calls} == {"GET"}


def test_while_another_update_goes_on_nothing_is_changed(desk: Desk):
    deploy(desk, "1")
    deploy(desk, "2")
    desk.endpoints.locked = True
    with pytest.raises(DeployError, match=f"{ENDPOINT} is currently updating"):
        deploy(desk, "3")
    with pytest.raises(DeployError, match=f"{ENDPOINT} can't be updated: The endpoint is being updated"):
        roll_back(plan_rollback(desk.agent()), "bad", lambda line: None)


@pytest.mark.parametrize("variables", [{"DATABRICKS_TOKEN": "an old one"}, {"DATABRICKS_TOKEN": ""}])
def test_invalid_credentials_are_a_one_line_error(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
):
    agent = desk.agent()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for plan in (plan_serving, plan_rollback):
        with pytest.raises(DeployError) as failure:
            plan(agent)
        assert len(str(failure.value).splitlines()) == 1
        assert "an old one" not in str(failure.value)


def test_an_undeployable_configuration_is_refused(desk: Desk):
    agent = desk.agent(
        lm={"model": "openai/x", "api_key_env": "DESK_API_KEY"},
        mlflow={"tracking_uri": "sqlite:///mlflow.db", "model_name": "desk"},
    )
    with pytest.raises(DeployError) as failure:
        plan_serving(agent)
    message = str(failure.value)
    assert "'sqlite:///mlflow.db'" in message
    assert "'<catalog>.<schema>.<name>'" in message
    assert "DESK_API_KEY: '{{secrets/<scope>/<key>}}'" in message


def test_what_the_workspace_lacks_keeps_a_version_from_being_deployed(desk: Desk):
    desk.workspace.on("GET", "/api/2.0/serving-endpoints", lambda call: {"endpoints": [{"name": "claude"}]})
    agent = desk.agent(lm={"model": "databricks/cloude"}, deploy={"environment": {"A": "{{secrets/desk/other}}"}})
    with pytest.raises(DeployError) as failure:
        plan_serving(agent)
    _, endpoint, secret, more = str(failure.value).splitlines()
    assert endpoint.endswith("Existing endpoints: claude.")
    assert secret.endswith("Run: databricks secrets put-secret desk other")
    assert "--no-check" in more
    assert plan_serving(agent, check=False).config.lm.model == "databricks/cloude"


@pytest.mark.parametrize("model", [MODEL, "main.agents.support_desk_", "main." + "a" * 70 + ".desk"])
def test_the_endpoint_has_the_name_that_databricks_gives_it(model: str):
    from databricks.agents.deployments import _create_endpoint_name

    assert endpoint_name(model) == _create_endpoint_name(model)


def test_a_rollback_gives_the_requests_and_the_alias_to_the_version_before(desk: Desk):
    deploy(desk, "1")
    deploy(desk, "3", environment={"LANGUAGE": "en"})
    desk.registry.aliases[MODEL, "champion"] = "3"
    plan = plan_rollback(desk.agent())
    assert (plan.current, plan.target, plan.alias) == ("3", "1", "champion")
    roll_back(plan, "version 3 invents prices", lambda line: None)
    assert desk.endpoints.traffic(ENDPOINT) == {"3": 0, "1": 100}
    assert desk.registry.aliases[MODEL, "champion"] == "1"
    assert desk.endpoints.entity(ENDPOINT, "3").environment_vars["LANGUAGE"] == "en"
    tags = {tag["key"]: tag["value"] for tag in desk.registry.version(MODEL, 3)["tags"]}
    assert tags["oneturn_rolled_back_because"] == "version 3 invents prices"


def test_a_rollback_goes_to_what_was_replaced_even_if_another_version_is_nearer(desk: Desk):
    deploy(desk, "1")
    deploy(desk, "2")
    roll_back(plan_rollback(desk.agent()), "bad", lambda line: None)
    deploy(desk, "3")
    assert plan_rollback(desk.agent()).target == "1", "version 2 was rolled back"
    assert plan_rollback(desk.agent(), "2").target == "2", "unless somebody wants it"


def test_an_alias_that_points_elsewhere_stays(desk: Desk):
    deploy(desk, "1")
    deploy(desk, "2")
    desk.registry.aliases[MODEL, "champion"] = "3"
    assert plan_rollback(desk.agent()).alias is None


def test_without_a_version_before_nothing_is_rolled_back(desk: Desk):
    with pytest.raises(DeployError, match=r"serves no version of main\.agents\.desk"):
        plan_rollback(desk.agent())
    deploy(desk, "2")
    with pytest.raises(DeployError, match="no version older than 2"):
        plan_rollback(desk.agent())
    with pytest.raises(DeployError, match="oneturn deploy serving 1"):
        plan_rollback(desk.agent(), "1")


def command(desk: Desk, *words: str) -> str:
    desk.agent(deploy={"environment": {"LANGUAGE": "en"}})
    options = ["--agent", str(desk.folder / "agent.py"), "--config", str(desk.folder / "config.yaml")]
    result = CliRunner().invoke(app, [*words, *options])
    assert result.exit_code == 0, result.output
    return result.output


def test_the_commands_say_what_they_do_and_what_to_do_next(desk: Desk):
    deploy(desk, "1")
    output = command(desk, "deploy", "serving", "--dry-run")
    assert "Version 3 of main.agents.desk" in output
    assert "Environment variables: LANGUAGE." in output
    assert desk.endpoints.traffic(ENDPOINT) == {"1": 100}
    output = command(desk, "deploy", "serving")
    assert f"oneturn query {desk.workspace.host}/serving-endpoints/{ENDPOINT} 'Is it open?'" in output
    assert "Review app:" in output
    output = command(desk, "rollback", "--reason", "slow")
    assert "from version 3 to version 1" in output
    assert desk.endpoints.traffic(ENDPOINT) == {"1": 100, "3": 0}
