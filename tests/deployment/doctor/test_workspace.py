"""What `oneturn doctor` sees of a workspace: the real SDK against the stand-in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from oneturn.config import AgentConfig
from oneturn.core.findings import Severity
from oneturn.deployment.doctor.runner import check_workspace
from tests.databricks.catalog_routes import Catalog
from tests.databricks.workspace import OWNER, Workspace, refused, signed_in

FUNCTION = {"kind": "unity_catalog", "function": "main.shop.status", "warehouse": "w1"}
ENDPOINT = "/api/2.0/serving-endpoints/claude"


@pytest.fixture
def workspace(monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    with signed_in(monkeypatch) as found:
        yield found


@pytest.fixture
def catalog(workspace: Workspace) -> Catalog:
    return Catalog(workspace)


def found(**sections: Any) -> dict[str, Any]:
    return {finding.check: finding for finding in check_workspace(AgentConfig.read(sections)).findings}


def resources(**kinds: str) -> dict[str, Any]:
    return {"deploy": {"resources": [{"kind": kind, "name": name} for kind, name in kinds.items()]}}


def endpoint(workspace: Workspace, **fields: Any) -> dict[str, Any]:
    workspace.on("GET", ENDPOINT, lambda call: {"name": "claude", "state": {"ready": "READY"}, **fields})
    return found(lm={"model": "databricks/claude"})


def test_an_agent_that_needs_nothing_of_a_workspace_asks_none():
    assert found() == {}


def test_an_endpoint_that_is_ready(workspace: Workspace):
    findings = endpoint(workspace, permission_level="CAN_QUERY")
    assert findings["workspace"].message == f"{workspace.host}, as {OWNER}"
    assert findings["serving endpoint claude"].message == "ready, CAN_QUERY"


def test_an_endpoint_that_may_be_seen_and_not_asked(workspace: Workspace):
    finding = endpoint(workspace, permission_level="CAN_VIEW")["serving endpoint claude"]
    assert finding.severity is Severity.error
    assert "CAN QUERY" in finding.fix


def test_an_endpoint_that_is_not_ready(workspace: Workspace):
    finding = endpoint(workspace, state={"ready": "NOT_READY"})["serving endpoint claude"]
    assert (finding.severity, finding.message) == (Severity.error, "it isn't ready")


def test_an_endpoint_that_is_not_there_names_those_like_it(workspace: Workspace):
    workspace.on("GET", ENDPOINT, lambda call: refused(404, "RESOURCE_DOES_NOT_EXIST", "No such endpoint."))
    there = [{"name": "claude-sonnet"}, {"name": "llama"}]
    workspace.on("GET", "/api/2.0/serving-endpoints", lambda call: {"endpoints": there})
    finding = found(lm={"model": "databricks/claude"})["serving endpoint claude"]
    assert finding.message == "it doesn't exist (No such endpoint)"
    assert finding.fix == "Existing endpoints: claude-sonnet."


def test_a_workspace_that_does_not_tell_is_no_problem_of_the_configuration(workspace: Workspace):
    workspace.on("GET", ENDPOINT, lambda call: refused(501, "NOT_IMPLEMENTED", "Not here."))
    assert found(lm={"model": "databricks/claude"})["serving endpoint claude"].severity is Severity.unknown


def test_credentials_that_do_not_hold_end_it_there(workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DATABRICKS_TOKEN", "dapi-expired")
    findings = found(lm={"model": "databricks/claude"})
    assert list(findings) == ["workspace"]
    assert findings["workspace"].severity is Severity.error
    assert "dapi-expired" not in repr(findings["workspace"])


def test_no_credentials_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Any):
    for name in ("DATABRICKS_HOST", "DATABRICKS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(tmp_path / "none"))
    finding = found(lm={"model": "databricks/claude"})["workspace"]
    assert finding.message == "there are no credentials here"
    assert "DATABRICKS_HOST" in finding.fix


def test_a_function_and_its_warehouse(catalog: Catalog):
    catalog.add("functions", "main.shop.status")
    catalog.add("warehouses", "w1", state="STOPPED")
    catalog.grants["FUNCTION", "main.shop.status"] = {"somebody@example.com": ["EXECUTE"]}
    findings = found(tools=[FUNCTION])
    function, warehouse = findings["function main.shop.status"], findings["sql warehouse w1"]
    assert function.severity is Severity.warning
    assert function.fix == f"Unless you own it: GRANT EXECUTE ON FUNCTION main.shop.status TO `{OWNER}`"
    assert (warehouse.severity, warehouse.message) == (Severity.warning, "it is STOPPED")


@pytest.mark.parametrize("who", [OWNER, "account users", "desk-team"])
def test_a_grant_counts_for_the_user_their_groups_and_everybody(workspace: Workspace, catalog: Catalog, who: str):
    me = {"userName": OWNER, "groups": [{"display": "desk-team"}]}
    workspace.on("GET", "/api/2.0/preview/scim/v2/Me", lambda call: me)
    catalog.add("functions", "main.shop.status")
    catalog.add("warehouses", "w1", state="RUNNING")
    catalog.grants["FUNCTION", "main.shop.status"] = {who: ["EXECUTE"]}
    findings = found(tools=[FUNCTION])
    assert findings["function main.shop.status"].message == "exists, EXECUTE"
    assert findings["sql warehouse w1"].severity is Severity.ok


def test_grants_that_may_not_be_seen_are_not_held_against_it(catalog: Catalog):
    catalog.add("tables", "main.shop.orders")
    finding = found(**resources(table="main.shop.orders"))["table main.shop.orders"]
    assert (finding.severity, finding.message) == (Severity.ok, "exists; its grants can't be read")


@pytest.mark.parametrize(
    ("kind", "fix"),
    [
        ("table", "Check the name in Catalog Explorer."),
        ("genie_space", "Check the name in Catalog Explorer."),
        ("uc_connection", "Check the name in Catalog Explorer."),
        ("vector_search_index", "Check the name in Catalog Explorer."),
    ],
)
def test_what_is_not_there_is_a_problem(catalog: Catalog, kind: str, fix: str):
    finding = found(**resources(**{kind: "a.b.c"}))[f"{kind.replace('_', ' ')} a.b.c"]
    assert (finding.severity, finding.fix) == (Severity.error, fix)


def test_an_index_and_its_endpoint(catalog: Catalog):
    status = {"ready": True, "indexed_row_count": 1200}
    catalog.add("indexes", "main.shop.handbook", endpoint_name="search", status=status)
    catalog.add("endpoints", "search", endpoint_status={"state": "ONLINE"})
    catalog.grants["TABLE", "main.shop.handbook"] = {OWNER: ["ALL_PRIVILEGES"]}
    findings = found(**resources(vector_search_index="main.shop.handbook"))
    assert findings["vector search index main.shop.handbook"].message == "ready, 1,200 rows, SELECT"
    assert findings["vector search endpoint search"].severity is Severity.ok
    catalog.things["endpoints", "search"]["endpoint_status"]["state"] = "STOPPED"
    findings = found(**resources(vector_search_index="main.shop.handbook"))
    assert findings["vector search endpoint search"].message == "it is STOPPED"
    status["ready"] = False
    findings = found(**resources(vector_search_index="main.shop.handbook"))
    assert findings["vector search index main.shop.handbook"].severity is Severity.error


def test_where_runs_models_and_secrets_are_kept(workspace: Workspace, catalog: Catalog):
    workspace.on(
        "GET",
        "/api/2.0/mlflow/experiments/get-by-name",
        lambda call: refused(404, "RESOURCE_DOES_NOT_EXIST", "No such experiment."),
    )
    kept = {
        "mlflow": {"tracking_uri": "databricks", "experiment": "/Teams/desk", "model_name": "main.agents.desk"},
        "deploy": {"environment": {"KEY": "{{secrets/desk/key}}", "LANGUAGE": "en"}},
    }
    findings = found(**kept)
    assert findings["experiment /Teams/desk"].fix == "Run: databricks workspace mkdirs /Teams"
    assert "CREATE SCHEMA main.agents" in findings["registered model main.agents.desk"].fix
    assert findings["deploy.environment KEY"].fix == "Run: databricks secrets create-scope desk"
    catalog.add("folders", "/Teams")
    catalog.add("schemas", "main.agents")
    catalog.secrets["desk"] = ["other"]
    findings = found(**kept)
    assert findings["experiment /Teams/desk"].severity is Severity.ok
    assert findings["registered model main.agents.desk"].severity is Severity.ok
    assert findings["deploy.environment KEY"].fix == "Run: databricks secrets put-secret desk key"
    catalog.secrets["desk"] = ["key"]
    catalog.grants["SCHEMA", "main.agents"] = {}
    findings = found(**kept)
    assert findings["deploy.environment KEY"].severity is Severity.ok
    assert "GRANT CREATE MODEL" in findings["registered model main.agents.desk"].fix


def test_what_users_may_do_is_not_known_here(catalog: Catalog):
    catalog.add("functions", "main.shop.status")
    finding = found(tools=[{**FUNCTION, "credentials": "user"}])["on behalf of users"]
    assert finding.severity is Severity.unknown
    assert "sql.statement-execution" in finding.message


def test_a_server_that_does_not_start_is_a_problem():
    finding = found(tools=[{"kind": "mcp", "command": "there-is-no-such-program"}])
    assert finding["MCP server there-is-no-such-program"].severity is Severity.error
