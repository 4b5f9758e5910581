"""The notebooks that ask an endpoint of Databricks, run from top to bottom against a stand-in of a workspace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from nbclient import NotebookClient

import oneturn
from oneturn.testing import ScriptedLM, finish
from tests.databricks.conftest import Desk
from tests.databricks.lm_routes import finishing_lm
from tests.databricks.query_routes import answer_by
from tests.reference_agent.notebook_outputs import read, write

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "notebooks" / "databricks.ipynb"
ANSWER = "Port 443."
MODEL = "main.agents.support_desk"
ENDPOINT = "agents_main-agents-support_desk"


@pytest.mark.notebooks
@pytest.mark.xdist_group("notebooks")
def test_it_brings_the_agent_to_an_endpoint_and_asks_it(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
):
    config = yaml.safe_load((ROOT / "configs" / "prod.yaml").read_text(encoding="utf-8"))
    endpoint = config["lm"]["model"].removeprefix("databricks/")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    monkeypatch.setenv("ONETURN_CONFIG", str(tmp_path / "config.yaml"))
    desk.endpoints.add_ready(endpoint)
    finishing_lm(desk.workspace, endpoint, {"answer": ANSWER, "citations": [], "answerable": True})
    program = oneturn.ReAct("question -> answer", tools=[])
    program.set_lm(ScriptedLM(*[finish(answer=ANSWER)] * 3))
    with oneturn.running_server(oneturn.ResponsesAdapter(program)) as url:
        answer_by(desk.workspace, ENDPOINT, url)
        notebook, found = executed(NOTEBOOK, "len(answers)", "deployed.url")
    assert found == ["3", f"'{desk.workspace.host}/serving-endpoints/{ENDPOINT}'"]
    assert desk.endpoints.traffic(ENDPOINT) == {"1": 100}
    assert desk.registry.aliases[MODEL, "challenger"] == "1"
    assert desk.registry.dependencies[MODEL, "1"] == [("DATABRICKS_MODEL_ENDPOINT", endpoint)]
    if request.config.getoption("--write-notebooks"):
        write(NOTEBOOK, notebook, {desk.workspace.host: "https://<workspace>", f"{tmp_path}/": ""})


@pytest.mark.notebooks
@pytest.mark.xdist_group("notebooks")
def test_every_cell_queries_the_given_endpoint(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ENDPOINT_URL", f"{desk.workspace.host}/serving-endpoints/{ENDPOINT}")
    program = oneturn.ReAct("question -> answer", tools=[])
    program.set_lm(ScriptedLM(*[finish(answer=ANSWER)] * 4))
    with oneturn.running_server(oneturn.ResponsesAdapter(program)) as url:
        answer_by(desk.workspace, ENDPOINT, url)
        _, found = executed(NOTEBOOK.with_name("query_endpoint.ipynb"), "list(answers)", "set(answers.values())")
    assert found == ["['oneturn.query', 'openai, streaming', 'HTTP', 'MLflow']", f"{{'{ANSWER}'}}"]


def executed(path: Path, *expressions: str) -> tuple[Any, list[str]]:
    """The notebook, once it has run, and the values of expressions."""
    found = read(path)
    found.cells += [nbformat.v4.new_code_cell(expression) for expression in expressions]
    NotebookClient(found, timeout=300, resources={"metadata": {"path": str(path.parent)}}).execute()
    return found, [cell.outputs[-1]["data"]["text/plain"] for cell in found.cells[-len(expressions) :]]
