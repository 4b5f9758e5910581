"""The files of the page: types, entity tags, headers, and when there is no page."""

from __future__ import annotations

import re

import pytest
from starlette.testclient import TestClient

import oneturn
from oneturn.config import ServeConfig
from oneturn.serving.app import application
from oneturn.testing import ScriptedLM


def client(**settings: object) -> TestClient:
    program = oneturn.ReAct("question -> answer", tools=[])
    program.set_lm(ScriptedLM())
    return TestClient(application(oneturn.ResponsesAdapter(program), settings=ServeConfig(**settings)))


def test_the_page_loads_only_files_that_the_server_has():
    server = client()
    page = server.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    linked = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert linked
    seen = set()
    while linked:
        path = linked.pop()
        file = server.get(f"/{path}")
        assert file.status_code == 200, path
        seen.add(path)
        modules = re.findall(r'from "\./([^"]+)"', file.text)
        linked += [f"page/{name}" for name in modules if f"page/{name}" not in seen]
    assert {path.rsplit(".")[-1] for path in seen} == {"js", "css", "svg"}


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/page/app.js", "text/javascript"), ("/page/page.css", "text/css"), ("/page/icon.svg", "image/svg+xml")],
)
def test_a_file_has_its_type_and_isn_t_sent_twice(path: str, kind: str):
    server = client()
    first = server.get(path)
    assert first.headers["content-type"].split(";")[0] == kind
    again = server.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert server.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


def test_the_page_runs_no_script_but_its_own():
    page = client().get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert not re.search(r"<script(?![^>]*\bsrc=)", page.text)
    assert not re.search(r"\son\w+=|\sstyle=", page.text)


def test_no_page():
    server = client(page=False)
    assert server.get("/").status_code == 404
    assert server.get("/page/app.js").status_code == 404


def test_an_unknown_file_of_the_page():
    assert client().get("/page/index.html").status_code == 404
    assert client().get("/page/..%2ffiles.py").status_code == 404


def test_the_page_needs_no_key_and_the_agent_does(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SECRET", "a-key")
    server = client(api_key_env="SECRET")
    assert server.get("/").status_code == 200
    assert server.get("/page/app.js").status_code == 200
    assert server.get("/agent/info").status_code == 401
    assert server.get("/page/other").status_code == 401
