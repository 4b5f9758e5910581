"""The stand-in of a workspace refuses what the real one would."""

from __future__ import annotations

import re

import pytest
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import NotFound, Unauthenticated
from databricks.sdk.service.serving import ServingEndpointDetailed

from tests.databricks.workspace import OWNER, TOKEN, Workspace

ENDPOINT = "/api/2.0/serving-endpoints/(?P<name>[^/]+)"


def client(workspace: Workspace, **credentials: str) -> WorkspaceClient:
    given = credentials or {"token": TOKEN}
    return WorkspaceClient(host=workspace.host, **given)


def test_it_knows_who_asks():
    with Workspace() as workspace:
        assert client(workspace).current_user.me().user_name == OWNER
        with pytest.raises(Unauthenticated):
            client(workspace, token="of somebody else").current_user.me()


def test_a_service_principal_gets_a_token():
    with Workspace() as workspace:
        workspace.principals["robot"] = "its secret"
        found = client(workspace, client_id="robot", client_secret="its secret")
        assert found.current_user.me().user_name == "robot"
        assert workspace.issued == 1


def test_what_is_asked_reaches_the_route_and_is_remembered():
    with Workspace() as workspace:
        workspace.on("GET", ENDPOINT, lambda call: ServingEndpointDetailed(name=call.parts["name"]).as_dict())
        assert client(workspace).serving_endpoints.get("desk").name == "desk"
        assert [call.user for call in workspace.asked("GET", ENDPOINT)] == [OWNER]


def test_a_call_that_nobody_expects_fails_the_test():
    def use() -> None:
        with Workspace() as workspace, pytest.raises(NotFound, match="No answer is registered"):
            client(workspace).serving_endpoints.get("desk")

    with pytest.raises(AssertionError, match=re.escape("GET /api/2.0/serving-endpoints/desk")):
        use()


def test_a_field_that_the_sdk_does_not_know_fails_the_test():
    def use() -> None:
        with Workspace() as workspace:
            workspace.on("POST", "/api/2.0/x", lambda call: call.read_as(ServingEndpointDetailed).as_dict())
            with pytest.raises(NotFound):
                client(workspace).api_client.do("POST", "/api/2.0/x", body={"nme": "a", "config": {"served": 1}})

    with pytest.raises(AssertionError, match=r"ServingEndpointDetailed has no nme, config\.served"):
        use()
