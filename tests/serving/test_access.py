"""Who may send requests to a server: by host, by origin, with a key."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

import oneturn
from oneturn.config import ServeConfig
from oneturn.errors import ConfigError
from oneturn.serving import application
from oneturn.testing import ScriptedLM, finish

QUESTION = {"input": [{"role": "user", "content": "?"}]}
KEY = "k-0123456789abcdef"


def client(*, loopback: bool = True, **settings: Any) -> TestClient:
    program = oneturn.ReAct("question -> answer", tools=[])
    program.set_lm(ScriptedLM(*[finish(answer="Yes.")] * 9))
    app = application(oneturn.ResponsesAdapter(program), settings=ServeConfig(**settings), loopback=loopback)
    return TestClient(app, base_url="http://localhost:8000")


def refusal(response: Any) -> tuple[int, str]:
    error = response.json()["error"]
    assert set(error) == {"type", "code", "message", "param"}
    assert response.headers["x-should-retry"] == "false"
    return response.status_code, error["code"]


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "127.9.9.9", "[::1]:8000", "a.localhost"]
)
def test_names_of_this_machine_are_accepted(host: str):
    assert client().post("/responses", json=QUESTION, headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example:8000", "", "127.0.0.1.evil.example", "[::", "é"]
)
@pytest.mark.parametrize("path", ["/responses", "/v1/responses", "/health", "/openapi.json", "/nowhere"])
def test_another_host_is_refused_on_loopback(host: str, path: str):
    response = client().post(path, json=QUESTION, headers={"host": host.encode()})
    assert refusal(response) == (403, "host_not_allowed")


def test_a_configured_host_is_accepted():
    headers = {"host": "agent.example:443"}
    assert client(allowed_hosts=["Agent.Example"]).post("/responses", json=QUESTION, headers=headers).status_code == 200


def test_any_host_is_accepted_if_other_machines_can_reach_the_server():
    headers = {"host": "agent.example"}
    assert client(loopback=False).post("/responses", json=QUESTION, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:9999", "file://", "é", "http://["]
)
@pytest.mark.parametrize("loopback", [True, False])
def test_pages_of_other_origins_are_refused(origin: str, loopback: bool):
    server = client(loopback=loopback)
    headers = {"origin": origin.encode()}
    assert refusal(server.post("/responses", json=QUESTION, headers=headers)) == (403, "origin_not_allowed")
    preflight = {**headers, "access-control-request-method": "POST"}
    assert refusal(server.options("/responses", headers=preflight)) == (403, "origin_not_allowed")


def test_pages_of_the_same_origin_are_accepted():
    headers = {"origin": "http://localhost:8000"}
    assert client().post("/responses", json=QUESTION, headers=headers).status_code == 200


@pytest.mark.parametrize("cors", [["https://chat.example"], ["*"]])
def test_pages_of_configured_origins_are_accepted(cors: list[str]):
    server = client(cors=cors)
    headers = {"origin": "https://chat.example"}
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
    preflight = server.options("/v1/responses", headers={**headers, **asked})
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] in ("*", "https://chat.example")
    response = server.post("/responses", json=QUESTION, headers=headers)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] in ("*", "https://chat.example")


def test_a_page_of_a_configured_origin_may_read_errors():
    server = client(cors=["https://chat.example"])
    response = server.post("/responses", json={}, headers={"origin": "https://chat.example"})
    assert response.status_code == 400
    assert response.headers["access-control-allow-origin"] == "https://chat.example"


WRONG_KEYS = ["", KEY, "Bearer", "Bearer ", "Bearer no", f"Bearer {KEY}x", f"Basic {KEY}", "Bearer schlüssel"]


@pytest.mark.parametrize("header", WRONG_KEYS)
def test_a_wrong_key_is_refused(header: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AGENT_KEY", KEY)
    server = client(api_key_env="AGENT_KEY")
    for path in ("/responses", "/v1/responses", "/invocations"):
        response = server.post(path, json=QUESTION, headers={"authorization": header.encode()})
        assert refusal(response) == (401, "invalid_api_key")
        assert response.headers["www-authenticate"] == "Bearer"
        assert KEY not in response.text
    assert server.get("/agent/info").status_code == 401


def test_the_key_is_accepted_and_health_needs_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AGENT_KEY", KEY)
    server = client(api_key_env="AGENT_KEY")
    headers = {"authorization": f"bearer {KEY}"}
    assert server.post("/v1/responses", json=QUESTION, headers=headers).status_code == 200
    assert server.get("/health").status_code == server.get("/ready").status_code == 200


def test_a_preflight_request_needs_no_key(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AGENT_KEY", KEY)
    server = client(api_key_env="AGENT_KEY", cors=["https://chat.example"])
    headers = {"origin": "https://chat.example", "access-control-request-method": "POST"}
    assert server.options("/responses", headers=headers).status_code == 200
    assert refusal(server.post("/responses", json=QUESTION, headers=headers)) == (401, "invalid_api_key")


@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_missing_key_names_its_environment_variable(value: str | None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AGENT_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("AGENT_KEY", value)
    with pytest.raises(ConfigError, match="The environment variable AGENT_KEY isn't set"):
        client(api_key_env="AGENT_KEY")


@pytest.mark.parametrize(("host", "status"), [("127.0.0.1", 403), ("0.0.0.0", 200)])
def test_a_running_server_checks_the_host_by_its_own_address(host: str, status: int):
    program = oneturn.ReAct("question -> answer", tools=[])
    with oneturn.running_server(oneturn.ResponsesAdapter(program), host=host) as url:
        port = url.rpartition(":")[2]
        response = httpx.get(f"http://127.0.0.1:{port}/health", headers={"host": "agent.example"})
    assert response.status_code == status


def test_a_mounted_application_with_a_key_has_the_same_open_paths(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AGENT_KEY", KEY)
    outer = Starlette(routes=[Mount("/team/desk", client(api_key_env="AGENT_KEY").app)])
    mounted = TestClient(outer, base_url="http://localhost:8000")
    for path in ("/", "/page/app.js", "/health"):
        assert mounted.get(f"/team/desk{path}").status_code == 200
    for path in ("/agent/info", "/v1/models"):
        assert refusal(mounted.get(f"/team/desk{path}")) == (401, "invalid_api_key")
    headers = {"Authorization": f"Bearer {KEY}"}
    assert mounted.post("/team/desk/v1/responses", json=QUESTION, headers=headers).status_code == 200
