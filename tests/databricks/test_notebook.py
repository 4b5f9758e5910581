"""The notebook for Databricks, run from top to bottom against a stand-in of a workspace."""

from __future__ import annotations

import ast
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

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "notebooks" / "databricks.ipynb"
ANSWER = "Port 443."
MODEL = "main.agents.support_desk"
ENDPOINT = "agents_main-agents-support_desk"


def notebook() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_its_cells_are_python():
    for cell in notebook().cells:
        if cell.cell_type == "code":
            ast.parse(cell.source)


@pytest.mark.notebooks
def test_it_brings_the_agent_to_an_endpoint_and_asks_it(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
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
        found = executed("len(answers)", "deployed.url")
    assert found == ["3", f"'{desk.workspace.host}/serving-endpoints/{ENDPOINT}'"]
    assert desk.endpoints.traffic(ENDPOINT) == {"1": 100}
    assert desk.registry.aliases[MODEL, "challenger"] == "1"
    assert desk.registry.dependencies[MODEL, "1"] == [("DATABRICKS_MODEL_ENDPOINT", endpoint)]


def executed(*expressions: str) -> list[str]:
    """The values of expressions, once the notebook has run."""
    found = notebook()
    found.cells += [nbformat.v4.new_code_cell(expression) for expression in expressions]
    NotebookClient(found, timeout=300, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    return [cell.outputs[-1]["data"]["text/plain"] for cell in found.cells[-len(expressions) :]]
