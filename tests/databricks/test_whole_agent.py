"""The repository's own agent as on Databricks: its LM an endpoint, its handbook an index; over HTTP to the stand-in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import oneturn
from oneturn.conformance import Severity, check_stream
from oneturn.deployment.doctor.runner import check_workspace
from oneturn.deployment.resources import resources_of
from tests.databricks.catalog_routes import Catalog
from tests.databricks.test_databricks_lm import CHAT, saying
from tests.databricks.workspace import OWNER, Call, Workspace, signed_in

ROOT = Path(__file__).resolve().parents[2]
INDEX = "main.support.handbook"
CONFIG = {
    "lm": {"model": "databricks/claude", "cache": False},
    "retriever": {"kind": "databricks", "index": INDEX, "text_column": "chunk", "primary_key": "id", "doc_uri": "url"},
    "compiled": "data/compiled/support_desk.json",
}
STEPS = (
    {"name": "search_handbook", "args": {"query": "firewall port"}},
    {"name": "finish", "args": {"answer": "Port 8443.", "citations": ["network"], "answerable": True}},
)


@pytest.fixture
def workspace(monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    with signed_in(monkeypatch) as found:
        answers = [saying(json.dumps({"tool_call": step})) for step in STEPS]

        def answer(call: Call) -> Any:
            searched = any("Port 8443" in str(message["content"]) for message in call.body["messages"][-1:])
            return answers[searched](call)

        found.on("POST", CHAT, answer)
        found.on("POST", f"/api/2.0/vector-search/indexes/{INDEX}/query", passages)
        yield found


def passages(call: Call) -> dict[str, Any]:
    names = call.body["columns"]
    row = {"id": "network", "chunk": "Open port 8443.".replace("port", "Port"), "url": "https://example.com/network"}
    columns = [{"name": name} for name in names]
    return {"manifest": {"columns": columns}, "result": {"data_array": [[row[name] for name in names]]}}


@pytest.fixture
def agent(workspace: Workspace, tmp_path: Path) -> oneturn.Agent:
    (tmp_path / "config.yaml").write_text(json.dumps(CONFIG))
    return oneturn.load_agent(ROOT / "agent.py", tmp_path / "config.yaml")


def test_a_question_is_answered_with_its_source(agent: oneturn.Agent, workspace: Workspace):
    request = {"input": [{"role": "user", "content": "Which port does our firewall have to open?"}]}
    events = [event.model_dump(exclude_none=True) for event in agent.adapter().predict_stream(request)]
    assert not [found for found in check_stream(events) if found.severity is not Severity.note]
    items = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert [item["type"] for item in items] == ["function_call", "function_call_output", "message"]
    (text,) = items[-1]["content"]
    assert text["text"] == "Port 8443."
    assert [annotation["url"] for annotation in text["annotations"]] == ["https://example.com/network"]
    assert [call.user for call in workspace.asked("POST", ".*")] == [OWNER] * 3


def test_all_that_it_needs_is_declared_and_looked_at(agent: oneturn.Agent, workspace: Workspace):
    catalog = Catalog(workspace)
    catalog.add("indexes", INDEX, status={"ready": True})
    state = {"name": "claude", "state": {"ready": "READY"}}
    workspace.on("GET", "/api/2.0/serving-endpoints/claude", lambda call: state)
    assert sorted(resource.name for resource in resources_of(agent.config)) == ["claude", INDEX]
    assert check_workspace(agent.config).passed()
