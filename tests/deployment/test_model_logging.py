"""What travels with a logged agent."""

import dataclasses
import re

import pytest

import oneturn
from oneturn import AgentConfig, log_model
from oneturn.deployment import model_logging as model_log
from oneturn.deployment.model_logging import requirements
from oneturn.errors import ProgramError
from oneturn.programs.state import Manifest, save_compiled
from oneturn.programs.state.interface import interface_of


@pytest.fixture
def agent(tmp_path):
    (tmp_path / "signatures").mkdir()
    return oneturn.Agent(
        name="parrot",
        config=AgentConfig.read({"lm": {"model": "openai/x"}}),
        build=lambda: oneturn.ReAct("question -> answer", tools=[]),
        metric=lambda gold, pred, trace=None: 1.0,
        root=tmp_path,
        code_paths=("signatures",),
        example_questions=("Is it open?",),
    )


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


@pytest.mark.parametrize(
    ("settings", "package"),
    [
        ({"tools": [{"kind": "mcp", "url": "https://tools.example/mcp"}]}, "mcp"),
        ({"serve": {"store_env": "STORE"}}, "psycopg"),
        ({"approvals": {"key_env": "KEY", "ledger_env": "LEDGER"}}, "psycopg"),
    ],
)
def test_what_the_configuration_needs_travels(agent, settings, package):
    pytest.importorskip(package)
    without = AgentConfig.read({"lm": {"model": "openai/x"}})
    configured = AgentConfig.read({"lm": {"model": "openai/x"}, **settings})
    names = [
        {line.partition("==")[0] for line in requirements(dataclasses.replace(agent, config=config))}
        for config in (without, configured)
    ]
    assert [package in found for found in names] == [False, True]


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
    empty = {key: {} for key in ("versions", "dataset", "scores", "spend")}
    manifest = Manifest(recipe="r", lm="openai/x", seed=0, created="", **empty, interface=interface_of(agent.build()))
    save_compiled(agent.build(), manifest, elsewhere)
    config = agent.config.model_copy(update={"compiled": str(elsewhere)})
    with pytest.raises(ProgramError, match=r"isn't logged with the model: the logged folders are signatures"):
        log_model(dataclasses.replace(agent, config=config))
