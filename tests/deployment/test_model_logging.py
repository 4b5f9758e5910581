"""What travels with a logged agent. (Logging itself is seen in test_end_to_end.py, with the embedded LM.)"""

import dataclasses
import re
from pathlib import Path

import pytest

from oneturn import AgentConfig, load_agent, log_model
from oneturn.deployment import model_logging as model_log
from oneturn.deployment.model_logging import requirements
from oneturn.errors import ProgramError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def agent():
    return load_agent(ROOT / "agent.py", ROOT / "configs" / "dev.yaml")


def with_lm(agent, model):
    config = AgentConfig.read({"lm": {"model": model}})
    return dataclasses.replace(agent, config=config)


def test_every_requirement_is_pinned_to_what_is_installed_here(agent):
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==\S+", line) for line in requirements(agent))


@pytest.mark.parametrize(("model", "needed"), [("local/0.5B", True), ("openai/gpt-4o-mini", False)])
def test_the_embedded_lm_travels_only_where_it_answers(agent, model, needed):
    names = [line.partition("==")[0] for line in requirements(with_lm(agent, model))]
    assert ("xllamacpp" in names) is needed
    assert {"dspy", "mlflow"} <= set(names)


def test_it_travels_where_it_embeds(agent):
    config = AgentConfig.read({"lm": {"model": "openai/x"}, "retriever": {"embeddings": "local/0.5B"}})
    names = [line.partition("==")[0] for line in requirements(dataclasses.replace(agent, config=config))]
    assert "xllamacpp" in names


def test_where_oneturn_has_come_as_code_its_requirements_have_come_too(agent, tmp_path, monkeypatch):
    (tmp_path / "requirements.txt").write_text("dspy==3.4.1\nmlflow==3.17.2\n")
    monkeypatch.setattr(model_log, "_PACKAGE", tmp_path / "oneturn")
    monkeypatch.setattr(model_log, "_installed", lambda name: name != "oneturn")
    assert requirements(agent) == ["dspy==3.4.1", "mlflow==3.17.2"]


def test_the_input_example_is_a_question_that_the_agent_can_answer(agent):
    question = agent.example_request()["input"][0]["content"]
    assert question == agent.example_questions[0]


def test_a_folder_that_is_not_there_is_named(agent, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lacking = dataclasses.replace(agent, code_paths=("signatures", "modulse"))
    with pytest.raises(ProgramError, match=r"modulse doesn't exist"):
        log_model(lacking)


def test_a_compiled_program_that_would_not_travel_is_not_logged(agent, tmp_path):
    elsewhere = tmp_path / "compiled.json"
    elsewhere.write_text((ROOT / "data" / "compiled" / "support_desk.json").read_text())
    config = agent.config.model_copy(update={"compiled": str(elsewhere)})
    with pytest.raises(ProgramError, match=r"isn't logged with the model: the logged folders are signatures"):
        log_model(dataclasses.replace(agent, config=config))
