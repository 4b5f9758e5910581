"""The examples of the pages about Databricks do what the pages say, and their commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

import oneturn
from oneturn.cli import app
from oneturn.testing import ScriptedLM, finish
from tests.databricks.query_routes import answer_by
from tests.databricks.workspace import TOKEN, Workspace

DOCS = Path(__file__).parents[2] / "docs"
PAGE = "\n".join((DOCS / name).read_text(encoding="utf-8") for name in ("databricks.md", "databricks-endpoints.md"))
ANSWER = "Until six."


def examples(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def defined(place: int) -> dict:
    found: dict = {}
    exec(compile(examples("python")[place], "databricks-endpoints.md", "exec", dont_inherit=True), found)
    return found


@pytest.mark.parametrize("way", ["ask_with_openai", "ask_with_mlflow"])
def test_an_endpoint_is_asked(way: str, monkeypatch: pytest.MonkeyPatch):
    program = oneturn.ReAct("question -> answer", tools=[])
    program.set_lm(ScriptedLM(finish(answer=ANSWER)))
    with oneturn.running_server(oneturn.ResponsesAdapter(program)) as url, Workspace() as workspace:
        monkeypatch.setenv("DATABRICKS_HOST", workspace.host)
        monkeypatch.setenv("DATABRICKS_TOKEN", TOKEN)
        answer_by(workspace, "desk", url)
        assert defined(0)[way]("desk", "Is it open?") == ANSWER


def test_an_inference_table_is_read():
    request = '{"input": [{"role": "user", "content": "Is it open, asks ann@example.com?"}]}'
    table = pd.DataFrame([{"request": request, "response": '{"output": []}'}, {"request": request, "response": ""}])
    assert list(defined(1)["read_questions"](table, {})["question"]) == ["Is it open, asks [email]?"]


def test_the_configuration_is_one():
    (text,) = examples("yaml")
    oneturn.AgentConfig.read(yaml.safe_load(text))


@pytest.mark.parametrize("command", sorted(set(re.findall(r"^oneturn ((?:deploy |data )?[\w-]+)", PAGE, re.MULTILINE))))
def test_the_commands_are_there(command: str):
    assert CliRunner().invoke(app, [*command.split(), "--help"]).exit_code == 0
