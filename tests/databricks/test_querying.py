"""Every way to ask a deployed agent, through a stand-in of a workspace, answered by a real server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from databricks.sdk import WorkspaceClient
from mlflow.deployments import get_deploy_client

import oneturn
from oneturn.core.databricks_auth import bearer_token
from oneturn.errors import EndpointError
from oneturn.testing import ScriptedLM, finish
from tests.databricks.query_routes import answer_by, events
from tests.databricks.workspace import TOKEN, Workspace, refused

QUESTION = [{"role": "user", "content": "Is it open?"}]
ANSWER = "Until six."


@pytest.fixture
def workspace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Workspace]:
    """A workspace with the endpoint ``desk``, and no credentials but those that a test sets."""
    for name in ("DATABRICKS_HOST", "DATABRICKS_TOKEN", "DATABRICKS_CLIENT_ID", "DATABRICKS_CONFIG_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(tmp_path / "databrickscfg"))
    program = oneturn.ReAct("question -> answer", tools=[])
    program.set_lm(ScriptedLM(*[finish(answer=ANSWER)] * 9))
    with oneturn.running_server(oneturn.ResponsesAdapter(program)) as url, Workspace() as found:
        answer_by(found, "desk", url)
        yield found


@pytest.fixture
def with_token(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("DATABRICKS_HOST", workspace.host)
    monkeypatch.setenv("DATABRICKS_TOKEN", TOKEN)
    return workspace


def url(workspace: Workspace) -> str:
    return f"{workspace.host}/serving-endpoints/desk"


def answer_text(found: list[dict[str, Any]]) -> str:
    return "".join(event["delta"] for event in found if event["type"] == "response.output_text.delta")


def test_our_client(with_token: Workspace):
    assert oneturn.query(url(with_token), "Is it open?").text == ANSWER
    assert oneturn.query(f"{url(with_token)}/invocations", "Is it open?").text == ANSWER


@pytest.mark.parametrize("made", [False, True], ids=["openai", "the SDK's openai"])
def test_the_openai_client(with_token: Workspace, made: bool):
    base = f"{with_token.host}/serving-endpoints"
    client = WorkspaceClient().serving_endpoints.get_open_ai_client() if made else None
    client = client or openai.OpenAI(base_url=base, api_key=TOKEN, max_retries=0)
    with client:
        assert client.responses.create(model="desk", input=QUESTION).output_text == ANSWER
        with client.responses.create(model="desk", input=QUESTION, stream=True) as stream:
            assert answer_text([event.to_dict() for event in stream]) == ANSWER


def test_mlflows_deployments_client(with_token: Workspace):
    client = get_deploy_client("databricks")
    whole = client.predict(endpoint="desk", inputs={"input": QUESTION})
    assert whole["output"][-1]["content"][0]["text"] == ANSWER
    assert answer_text(list(client.predict_stream(endpoint="desk", inputs={"input": QUESTION}))) == ANSWER


def test_curl(with_token: Workspace):
    command = ["curl", "-sN", f"{url(with_token)}/invocations", "-H", f"Authorization: Bearer {TOKEN}"]
    command += ["-H", "Content-Type: application/json", "-d"]
    whole = subprocess.run([*command, json.dumps({"input": QUESTION})], capture_output=True, text=True, check=True)
    assert json.loads(whole.stdout)["output"][-1]["content"][0]["text"] == ANSWER
    streamed = json.dumps({"input": QUESTION, "stream": True})
    stream = subprocess.run([*command, streamed], capture_output=True, text=True, check=True)
    assert answer_text(events(stream.stdout)) == ANSWER


def test_a_service_principal_asks_without_a_token(workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    workspace.principals["robot"] = "its secret"
    monkeypatch.setenv("DATABRICKS_CLIENT_ID", "robot")
    monkeypatch.setenv("DATABRICKS_CLIENT_SECRET", "its secret")
    for _ in range(2):
        assert oneturn.query(url(workspace), "Is it open?").text == ANSWER
    assert {call.user for call in workspace.asked("POST", "/serving-endpoints/.*")} == {"robot"}
    assert workspace.issued == 1, "a token is kept until it expires"


def test_a_profile_asks(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "databrickscfg").write_text(f"[work]\nhost = {workspace.host}\ntoken = {TOKEN}\n")
    monkeypatch.setenv("DATABRICKS_CONFIG_PROFILE", "work")
    assert oneturn.query(url(workspace), "Is it open?").text == ANSWER
    with pytest.raises(EndpointError, match=r"belong to .*another workspace") as failure:
        oneturn.query("https://elsewhere.invalid/serving-endpoints/desk", "?")
    assert failure.value.status == 401


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "no credentials for http://.*DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET"),
        (
            {"DATABRICKS_CLIENT_ID": "robot", "DATABRICKS_CLIENT_SECRET": "a wrong one"},
            "credentials for .* are invalid",
        ),
        ({"DATABRICKS_TOKEN": "of somebody else"}, "Check the credentials"),
    ],
    ids=["none", "a wrong secret", "a wrong token"],
)
def test_invalid_credentials_are_rejected(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(EndpointError, match=message) as failure:
        oneturn.query(url(workspace), "?")
    assert failure.value.status == 401
    assert not any(value in str(failure.value) for value in variables.values() if value != "robot")


def test_a_token_that_the_server_repeats_is_redacted(with_token: Workspace):
    said = refused(403, "PERMISSION_DENIED", f"{TOKEN} may not.")
    with_token.on("POST", "/serving-endpoints/responses", lambda call: said)
    with pytest.raises(EndpointError, match="… may not") as failure:
        oneturn.query(url(with_token), "?")
    assert TOKEN not in str(failure.value)
    assert failure.value.status == 403


def test_an_app_takes_oauth_only(workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DATABRICKS_HOST", workspace.host)
    monkeypatch.setenv("DATABRICKS_TOKEN", TOKEN)
    with pytest.raises(EndpointError, match="An app accepts only OAuth"):
        bearer_token("https://desk-17.aws.databricksapps.com/responses")
    monkeypatch.delenv("DATABRICKS_TOKEN")
    workspace.principals["robot"] = "its secret"
    monkeypatch.setenv("DATABRICKS_CLIENT_ID", "robot")
    monkeypatch.setenv("DATABRICKS_CLIENT_SECRET", "its secret")
    assert bearer_token("https://desk-17.aws.databricksapps.com") == "token-1-of-robot"


def test_an_endpoint_that_is_not_there(with_token: Workspace):
    with pytest.raises(EndpointError, match="does not exist: other") as failure:
        oneturn.query(f"{with_token.host}/serving-endpoints/other", "?")
    assert (failure.value.status, failure.value.code) == (404, "RESOURCE_DOES_NOT_EXIST")
