"""One client for the agent, one for each call of a user, and nobody's credentials are taken for another's."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

import oneturn
from oneturn.config import AgentConfig
from oneturn.core import databricks_auth
from oneturn.core.databricks_auth import bearer_token, workspace_client, workspace_token
from oneturn.core.run_context import RunContext
from oneturn.errors import ConfigError, EndpointError
from oneturn.testing import ScriptedLM, finish
from oneturn.toolsets import build_tools
from tests.databricks.query_routes import answer_by
from tests.databricks.workspace import OWNER, TOKEN, Workspace, signed_in


@pytest.fixture
def workspace(monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    with signed_in(monkeypatch) as found:
        yield found


def user() -> str | None:
    return workspace_client().current_user.me().user_name


def test_the_agent_uses_the_credentials_of_its_environment(workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    workspace.users["another"] = "ann@example.com"
    assert user() == OWNER
    assert workspace_client() is workspace_client()
    monkeypatch.setenv("DATABRICKS_TOKEN", "another")
    assert user() == "ann@example.com"
    with Workspace() as elsewhere:
        elsewhere.users["another"] = "bob@example.com"
        monkeypatch.setenv("DATABRICKS_HOST", elsewhere.host)
        assert user() == "bob@example.com"


def test_the_agent_uses_the_current_content_of_its_profile(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    file = tmp_path / "databrickscfg"
    for name in ("DATABRICKS_HOST", "DATABRICKS_TOKEN"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(file))
    monkeypatch.setenv("DATABRICKS_CONFIG_PROFILE", "work")
    workspace.users["another"] = "ann@example.com"
    for seconds, (token, name) in enumerate([(TOKEN, OWNER), ("another", "ann@example.com")]):
        file.write_text(f"[work]\nhost = {workspace.host}\ntoken = {token}\n")
        os.utime(file, (seconds, seconds))
        assert user() == name


def test_all_ways_to_use_the_agents_credentials_share_one_token(workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    workspace.principals["robot"] = "its secret"
    monkeypatch.delenv("DATABRICKS_TOKEN")
    monkeypatch.setenv("DATABRICKS_CLIENT_ID", "robot")
    monkeypatch.setenv("DATABRICKS_CLIENT_SECRET", "its secret")
    assert user() == "robot"
    assert workspace_token("agent") == (workspace.host, "token-1-of-robot")
    assert bearer_token(f"{workspace.host}/serving-endpoints/desk") == "token-1-of-robot"
    assert workspace_token("agent", renew=True) == (workspace.host, "token-2-of-robot")
    assert bearer_token(f"{workspace.host}/serving-endpoints/desk") == "token-2-of-robot"
    assert "token-2-of-robot" in workspace_client().config.authenticate()["Authorization"]


def test_the_agents_own_never_stand_for_a_users(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DATABRICKS_HOST", "http://127.0.0.1:1")
    monkeypatch.setenv("DATABRICKS_TOKEN", TOKEN)
    with pytest.raises(ConfigError, match="needs a calling user"):
        workspace_client("user")


def test_a_users_token_is_not_kept(workspace: Workspace):
    workspace.users["token-1"] = "ann"
    with RunContext(caller="token-1").active():
        client = workspace_client("user")
        assert client.current_user.me().user_name == "ann"
    kept = weakref.ref(client)
    del client
    gc.collect()
    assert kept() is None
    assert user() == OWNER


def test_the_cache_names_no_token(workspace: Workspace):
    assert user() == OWNER
    assert TOKEN not in repr(databricks_auth._clients)


def test_a_token_is_not_sent_to_another_workspace(workspace: Workspace):
    with pytest.raises(EndpointError, match=r"belong to .*another workspace") as failure:
        bearer_token("https://elsewhere.invalid/serving-endpoints/desk")
    assert failure.value.status == 401
    assert TOKEN not in str(failure.value)


def test_an_agents_endpoint_is_a_tool_before_a_user_asks_and_is_called_for_the_user_only(workspace: Workspace):
    workspace.users["token-1"] = "ann"
    program = oneturn.ReAct("question -> answer", tools=[])
    program.set_lm(ScriptedLM(finish(answer="Until six.")))
    endpoint = {"kind": "serving_endpoint", "endpoint": "desk", "description": "Ask it.", "credentials": "user"}
    (tool,) = build_tools(AgentConfig.read({"tools": [endpoint]}))
    with oneturn.running_server(oneturn.ResponsesAdapter(program)) as url:
        answer_by(workspace, "desk", url)
        with RunContext(caller="token-1").active():
            assert "Until six." in str(tool(question="Is it open?"))
    assert {call.user for call in workspace.asked("POST", "/serving-endpoints/.*")} == {"ann"}
