"""The agent that docs/your-own-agent.md builds line by line works."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import dspy
import pytest
from typer.testing import CliRunner

import oneturn
from oneturn.cli import app
from oneturn.compilation.recipes import RECIPES, recipes_of
from oneturn.datasets import check_data
from oneturn.testing import ScriptedLM, call, finish

PAGE = Path(__file__).parents[1] / "docs" / "your-own-agent.md"


def blocks(language: str) -> str:
    """Return the code of a language on the page."""
    found = re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return "\n".join(found)


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> oneturn.Agent:
    """The page's agent with the page's examples, loaded from a third folder."""
    files = {"agent.py": "python", "configs/dev.yaml": "yaml", "data/examples/train.jsonl": "json"}
    for name, language in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(blocks(language), encoding="utf-8")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(sys.modules, "agent", None)
    return oneturn.load_agent(tmp_path / "agent.py")


def test_agent_answers_and_is_scored(agent: oneturn.Agent):
    examples = agent.examples("train")
    replies = [
        *(call("parcel_status", number="P-17"), finish(answer="It is out for delivery.", delayed=False)),
        *(call("parcel_status", number="P-18"), finish(answer="It waits.", delayed=True)),
    ]
    with ScriptedLM(*replies) as lm:
        evaluation = oneturn.evaluate(agent.program(), examples, agent.metric, lm=lm, progress=False)
    assert list(evaluation.rows["score"]) == [1.0, 0.5]


def test_invented_parcel_is_refused(agent: oneturn.Agent):
    with (
        ScriptedLM(call("parcel_status", number="P-99"), finish(answer="I need a number.", delayed=False)) as lm,
        dspy.context(lm=lm),
    ):
        agent.program()(question="Where is my parcel?")
    assert "P-99" in lm.requests[-1].text
    assert "there is no parcel" not in lm.requests[-1].text


def test_examples_match_the_schema_that_the_command_prints(agent: oneturn.Agent, tmp_path: Path):
    result = CliRunner().invoke(app, ["data", "schema", "--agent", str(tmp_path / "agent.py")])
    assert result.exit_code == 0, result.output
    schema = json.loads(result.output)
    assert schema["properties"]["delayed"]["type"] == "boolean"
    (agent.examples_folder / "schema.json").write_text(result.output, encoding="utf-8")
    assert check_data(agent, progress=False).passed()
    (agent.examples_folder / "train.jsonl").write_text('{"question": 3}', encoding="utf-8")
    assert not check_data(agent, progress=False).passed()


def test_defaults_are_those_of_the_page(agent: oneturn.Agent, tmp_path: Path):
    assert agent.root == tmp_path
    assert agent.logged_paths == ()
    assert recipes_of(agent) == RECIPES
    assert agent.example_request()["input"][0]["content"] == "Where is P-17?"
    assert check_data(agent, progress=False).passed()
