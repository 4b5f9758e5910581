"""An agent is declared in four fields; the rest has defaults."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path
from typing import Any

import dspy
import pytest

import oneturn
from oneturn.errors import ConfigError, DataError, ProgramError
from oneturn.testing import ScriptedLM

DECLARATION = """
import dspy
import oneturn

CONFIG = oneturn.AgentConfig.read({})


class Mine(oneturn.Agent):
    pass


AGENT = Mine(
    name="mine",
    config=CONFIG,
    build=lambda: dspy.Predict("question, limit: int -> answer"),
    metric=lambda gold, pred, trace=None: gold.answer == pred.answer,
)
"""


def declared(folder: Path, rows: list[dict[str, Any]] | None = None) -> oneturn.Agent:
    (folder / "agent.py").write_text(DECLARATION)
    if rows is not None:
        examples = folder / "data" / "examples"
        examples.mkdir(parents=True)
        (examples / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = importlib.util.spec_from_file_location("a_declared_agent", folder / "agent.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.AGENT


def test_root_is_the_folder_of_the_declaration(tmp_path: Path):
    assert declared(tmp_path).root == tmp_path


def test_root_of_a_logged_model_is_its_code_folder(tmp_path: Path):
    (tmp_path / "MLmodel").touch()
    assert declared(tmp_path).root == tmp_path / "code"


def test_packages_beside_the_declaration_are_logged(tmp_path: Path):
    for name in ("modules", "data", "tests", "oneturn"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    (tmp_path / "notebooks").mkdir()
    agent = declared(tmp_path)
    assert agent.logged_paths == ("data", "modules")
    assert dataclasses.replace(agent, code_paths=()).logged_paths == ()


def test_examples_are_read_from_the_configured_folder_with_the_types_of_the_signature(tmp_path: Path):
    agent = declared(tmp_path, [{"id": "a", "question": "Why?", "limit": "3", "answer": "So."}])
    (example,) = agent.examples("train")
    assert example.inputs().toDict() == {"question": "Why?", "limit": 3}
    assert (example.id, example.answer) == ("a", "So.")
    other = agent.config.model_copy(update={"data": agent.config.data.model_copy(update={"examples": "elsewhere"})})
    with pytest.raises(DataError, match="elsewhere has no examples"):
        dataclasses.replace(agent, config=other).examples("train")


def test_rows_that_are_no_examples_are_listed(tmp_path: Path):
    agent = declared(tmp_path, [{"question": "Why?"}, {"question": "Why?", "limit": "many"}])
    with pytest.raises(DataError, match=r"(?s)2 rows.*line 1: the input 'limit' is missing.*line 2: limit: Input") as e:
        agent.examples("train")
    assert [place for place, _ in e.value.problems] == ["line 1", "line 2"]
    with pytest.raises(DataError, match="There is no split 'tset'"):
        agent.examples("tset")
    with pytest.raises(DataError, match="has no dev examples"):
        agent.examples("dev")


def test_first_training_example_is_the_example_request(tmp_path: Path):
    request = declared(tmp_path, [{"question": "Why?", "limit": 3}]).example_request()
    assert request == {"input": [{"role": "user", "content": "Why?"}], "custom_inputs": {"limit": 3}}


def test_agent_without_any_question_is_told_to_add_one(tmp_path: Path):
    with pytest.raises(ProgramError, match="mine has no question to be tried with: add a training example"):
        declared(tmp_path).example_request()


def test_registered_model_has_the_agents_name_unless_configured(tmp_path: Path):
    agent = declared(tmp_path)
    assert agent.config.mlflow.model_name == "mine"
    config = oneturn.AgentConfig.read({"mlflow": {"model_name": "main.a.b"}})
    assert dataclasses.replace(agent, config=config).config.mlflow.model_name == "main.a.b"


def test_program_may_bring_its_own_lm_and_needs_one_otherwise(tmp_path: Path):
    agent = declared(tmp_path)
    with pytest.raises(ConfigError, match="No LM is configured"):
        agent.serving_program()
    own = ScriptedLM()
    program = dspy.Predict("question -> answer")
    program.set_lm(own)
    served = dataclasses.replace(agent, build=lambda: program).serving_program()
    assert served.lm is own


class Routed(dspy.Module):
    """A router with an LM of its own, and a writer with the configured one."""

    signature = "question -> answer"

    def __init__(self, own: dspy.LM):
        super().__init__()
        self.route = dspy.Predict("question -> queue")
        self.route.lm = own
        self.write = dspy.Predict("question, queue -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        return self.write(question=question, queue=self.route(question=question).queue)


def test_a_predictor_keeps_the_lm_that_it_was_built_with_when_it_is_served(tmp_path: Path):
    own = ScriptedLM()
    config = oneturn.AgentConfig.read({"lm": {"model": "openai/x"}})
    served = dataclasses.replace(declared(tmp_path), config=config, build=lambda: Routed(own)).serving_program()
    assert served.route.lm is own
    assert served.write.lm.model == "openai/x"
