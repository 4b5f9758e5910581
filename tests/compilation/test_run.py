"""Compiling an agent: what is saved, and which mistakes are errors."""

import dataclasses
import json
from pathlib import Path

import dspy
import pytest

import oneturn
from oneturn.agent import Agent
from oneturn.errors import ConfigError
from oneturn.programs.state import load_compiled, read_manifest
from oneturn.testing import ScriptedLM, finish

QUESTIONS = ["one?", "two?"]


def examples(split):
    return [dspy.Example(id=f"{split}-{q}", question=q, answer=q).with_inputs("question") for q in QUESTIONS]


def right(gold, pred, trace=None):
    return float(pred.answer == gold.answer)


def instructed(student, *, trainset, valset, metric, seed, threads):
    compiled = student.deepcopy()
    compiled.step.signature = compiled.step.signature.with_instructions("Repeat the question.")
    return compiled


def agent(lm, folder: Path, monkeypatch) -> Agent:
    monkeypatch.setattr("oneturn.agent.build_lm", lambda config: lm)
    config = oneturn.AgentConfig.read({"compiled": "compiled.json", "compile": {"recipe": "instructed"}})
    return Agent(
        name="parrot",
        config=config,
        build=lambda: oneturn.ReAct("question -> answer", tools=[], thoughts=False),
        metric=right,
        examples=examples,
        recipes={"instructed": instructed},
        root=folder,
        code_paths=(),
        example_questions=QUESTIONS,
    )


def test_compile_saves_the_program_with_scores_before_and_after(tmp_path, monkeypatch):
    replies = [finish(answer="wrong"), finish(answer="two?"), finish(answer="one?"), finish(answer="two?")]
    with ScriptedLM(*replies) as lm:
        parrot = agent(lm, tmp_path, monkeypatch)
        done = oneturn.compile(parrot)
    assert (done.before.score, done.after.score) == (0.5, 1.0)
    manifest = read_manifest(tmp_path / "compiled.json")
    assert manifest.recipe == "instructed"
    assert manifest.tool_calling == "schema"
    assert manifest.scores["after"]["score"] == 1.0
    assert set(manifest.dataset) == {"train", "dev"}
    assert parrot.program().step.signature.instructions == "Repeat the question."
    assert parrot.program(compiled=False).step.signature.instructions != "Repeat the question."


def test_compiled_file_contains_no_lm(tmp_path, monkeypatch):
    with ScriptedLM(*[finish(answer="x")] * 4) as lm:
        parrot = agent(lm, tmp_path, monkeypatch)
        oneturn.compile(parrot)
    state = json.loads((tmp_path / "compiled.json").read_text())["state"]
    assert state["step"]["lm"] is None
    load_compiled(parrot.build(), tmp_path / "compiled.json")


def test_unknown_recipe_is_an_error_that_lists_the_recipes(tmp_path, monkeypatch):
    with ScriptedLM() as lm:
        parrot = agent(lm, tmp_path, monkeypatch)
        with pytest.raises(ConfigError, match=r"no recipe 'miprov2'. Available recipes:\n  instructed "):
            oneturn.compile(parrot, recipe="miprov2")


def test_compile_without_a_configured_file_is_an_error(tmp_path, monkeypatch):
    with ScriptedLM() as lm:
        parrot = agent(lm, tmp_path, monkeypatch)
        pathless = dataclasses.replace(parrot, config=oneturn.AgentConfig.read({"compile": {"recipe": "instructed"}}))
        with pytest.raises(ConfigError, match="compiled is not set"):
            oneturn.compile(pathless)
