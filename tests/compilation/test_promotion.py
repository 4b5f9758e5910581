"""The alias moves to a better version, or by force with a reason, on a real registry."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dspy
import mlflow
import pandas as pd
import pytest
from click.testing import Result
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from typer.testing import CliRunner

import oneturn
from oneturn.agent import Agent
from oneturn.cli import app
from oneturn.deployment import promotion
from oneturn.deployment.promotion import promote
from oneturn.deployment.registry import evaluate_version
from oneturn.errors import DataError, OneTurnError, ProgramError
from oneturn.evaluation.result import Evaluation
from oneturn.programs.state import Manifest, save_compiled
from oneturn.programs.state.interface import interface_of

AGENT = """
from pathlib import Path

import dspy
import mlflow

import oneturn
from oneturn.testing import ScriptedLM, finish
from promoted import skill

ROOT = Path(skill.__file__).parents[1]
CONFIG = oneturn.AgentConfig.read("config.yaml", root=ROOT)


def answer(asked):
    number = int(asked.messages[-1]["content"].split()[-1])
    if number == 19:  # a row that fails, in every version
        raise RuntimeError("out of order")
    known = skill.COMPILED if "Count well." in asked.text else 4
    return finish(answer="yes" if number < known else "no", sure=True)


class Counting(oneturn.Agent):
    def lm(self):
        return ScriptedLM(*[answer] * 99)


def metric(example, prediction, trace=None):
    assert prediction.sure is True and prediction.trajectory == []
    return prediction.answer == "yes"


def examples(split):
    rows = [dict(question=f"number {n}", category="even" if n % 2 == 0 else "odd", gold="yes") for n in range(20)]
    return [dspy.Example(**row).with_inputs("question") for row in rows]


AGENT = Counting(
    name="counting",
    config=CONFIG,
    build=lambda: oneturn.ReAct("question -> answer, sure: bool", tools=[], thoughts=False),
    metric=metric,
    examples=examples,
    recipes={},
    root=ROOT,
    code_paths=("promoted",),
    example_questions=("number 1",),
)
mlflow.models.set_model(AGENT.adapter())
"""
NAME = "counting"
HINT = "Say yes to each of the numbers that you know by heart."


def forget() -> None:
    """Let the agent's code be imported anew."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "promoted"]:
        del sys.modules[name]
    importlib.invalidate_caches()


def written(folder: Path, skill: int) -> Agent:
    """The agent, whose compiled program knows so many numbers."""
    (folder / "promoted" / "skill.py").write_text(f"COMPILED = {skill}\n")
    forget()
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    try:
        return oneturn.load_agent(folder / "agent.py", folder / "config.yaml")
    finally:
        sys.dont_write_bytecode = before


def compiled(agent: Agent) -> None:
    program = agent.build()
    figures: dict[str, Any] = {
        "scores": {"after": {"score": 0.5}},
        "spend": {},
        "versions": {},
        "dataset": {"dev": "x"},
    }
    manifest = Manifest(recipe="r", lm="l", seed=0, created="2026", interface=interface_of(program), **figures)
    program.step.signature = program.step.signature.with_instructions(f"Count well. {HINT}")
    save_compiled(program, manifest, agent.compiled_path)


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder with the agent, of which versions 1 and 2, with different code, are registered."""
    patch = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("counting")
    store = f"sqlite:///{folder}/mlflow.db"
    (folder / "promoted").mkdir()
    (folder / "promoted" / "__init__.py").write_text("")
    (folder / "agent.py").write_text(AGENT)
    config = {
        "compiled": "promoted/compiled.json",
        "mlflow": {"tracking_uri": store, "experiment": "gate", "model_name": NAME},
    }
    (folder / "config.yaml").write_text(json.dumps(config))
    patch.setattr(sys, "path", [str(folder), *sys.path])
    patch.setitem(sys.modules, "agent", None)
    patch.setattr("mlflow.tracking.fluent._active_experiment_id", None)
    patch.chdir(folder)
    before = mlflow.get_tracking_uri()
    for skill in (10, 16):
        agent = written(folder, skill)
        compiled(agent)
        oneturn.log_model(agent, register=True)
    mlflow.set_tracking_uri(before)
    yield folder, store
    mlflow.set_tracking_uri(before)
    forget()
    patch.undo()


@pytest.fixture
def client(registered: tuple[Path, str]) -> Iterator[MlflowClient]:
    """The registry, without a champion and without tags."""
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(registered[1])
    found = MlflowClient(registered[1], registered[1])
    found.delete_registered_model_alias(NAME, "champion")
    for entry in found.search_model_versions(f"name = '{NAME}'"):
        for tag in [tag for tag in entry.tags if tag.startswith("oneturn_")]:
            found.delete_model_version_tag(NAME, entry.version, tag)
    yield found
    mlflow.set_tracking_uri(before)


@pytest.fixture
def agent(registered: tuple[Path, str]) -> Agent:
    return oneturn.load_agent(registered[0] / "agent.py", registered[0] / "config.yaml")


def champion(client: MlflowClient) -> str:
    return str(client.get_model_version_by_alias(NAME, "champion").version)


def tags(client: MlflowClient, version: str) -> dict[str, str]:
    found = client.get_model_version(NAME, version).tags
    return {name.removeprefix("oneturn_"): value for name, value in found.items() if name.startswith("oneturn_")}


Measured = Callable[..., None]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Measured:
    """Say how many of 20 numbers each version knows, instead of letting it answer."""

    def say(**known: int | Exception) -> None:
        def evaluate_version(agent: Any, version: Any, examples: Any, compiled: bool = True) -> Evaluation:
            right = known[f"v{version.version}" if compiled else "uncompiled"]
            if isinstance(right, Exception):
                raise right
            rows = [
                {**dict(example), "score": float(place < right), "error": None}
                for place, example in enumerate(examples)
            ]
            return Evaluation(pd.DataFrame(rows))

        monkeypatch.setattr(promotion, "evaluate_version", evaluate_version)

    return say


def test_versions_run_with_their_own_code_and_the_better_one_is_promoted(client, agent, monkeypatch):
    client.set_registered_model_alias(NAME, "champion", "1")
    monkeypatch.setenv("ONETURN_SET", "compiled=null")  # what is set for a command isn't what a version serves with
    found = promote(agent)
    assert found.result is not None
    assert (found.result.champion_score, found.result.challenger_score) == (0.5, 0.8)
    assert found.moved
    assert (found.version, found.replaced, champion(client)) == ("2", "1", "2")
    record = tags(client, "2")
    assert record["promotion"] == "by the gate"
    assert record["gate"].startswith("The rule holds: version 2 differs from version 1 by +30.0%")
    assert record["replaced"] == "1"
    assert {"promoted_at", "promoted_by", "promoted_as", "gate_run"} <= set(record)
    files = {file.path for file in client.list_artifacts(found.run_id)}
    assert files == {"gate.md", "gate.json", "rows"}
    assert client.get_run(found.run_id).data.metrics["difference"] == pytest.approx(0.3)


def test_version_that_is_not_better_is_refused(client, agent, measured):
    client.set_registered_model_alias(NAME, "champion", "2")
    measured(v1=10, v2=16)
    found = promote(agent, "1")
    assert not found.moved
    assert champion(client) == "2"
    assert tags(client, "1") == {}
    assert client.get_run(found.run_id).data.tags["oneturn.gate"] == "refused", "a refusal is kept too"


def test_version_that_repeats_a_dev_row_is_promoted_by_force_only(client, agent, measured):
    client.set_registered_model_alias(NAME, "champion", "1")
    measured(v1=10, v2=16)
    row = dspy.Example(id="dev-7", question=HINT, category="odd", gold="yes").with_inputs("question")
    train = [dspy.Example(question=f"number {n}").with_inputs("question") for n in range(20)]
    leaked = dataclasses.replace(agent, examples=lambda split: [row, *train] if split == "dev" else train)
    with pytest.raises(ProgramError, match=r"Version 2 isn't promoted: .*\n  - dev-7 \(dev\), question, 100% of it"):
        promote(leaked)
    assert champion(client) == "1"
    found = promote(leaked, force=True, reason="the row is public")
    assert (found.moved, champion(client)) == (True, "2")
    assert tags(client, "2")["repeated_rows"] == "dev-7"


def test_forced_promotion_is_recorded(client, agent, measured):
    client.set_registered_model_alias(NAME, "champion", "2")
    measured(v1=10, v2=16)
    found = promote(agent, 1, force=True, reason="version 2 is too slow")
    assert found.moved
    assert found.forced
    assert champion(client) == "1"
    record = tags(client, "1")
    assert record["promotion"] == "forced"
    assert record["promotion_reason"] == "version 2 is too slow"
    assert record["gate"].startswith("The rule doesn't hold: version 1 differs from version 2 by -30.0%")


def test_unneeded_force_is_a_normal_promotion(client, agent, measured):
    client.set_registered_model_alias(NAME, "champion", "1")
    measured(v1=10, v2=16)
    assert not promote(agent, force=True, reason="hurry").forced
    assert tags(client, "2")["promotion"] == "by the gate"


def test_force_is_recorded_on_the_run_and_cleared_by_a_later_promotion(client, agent, measured):
    client.set_registered_model_alias(NAME, "champion", "2")
    measured(v1=10, v2=16)
    forced = promote(agent, 1, force=True, reason="version 2 is too slow")
    run_tags = client.get_run(forced.run_id).data.tags
    assert run_tags["oneturn.promotion"] == "forced"
    assert run_tags["oneturn.promotion_reason"] == "version 2 is too slow"
    assert {"oneturn.promoted_by", "oneturn.promoted_at", "oneturn.promoted_as"} <= set(run_tags)
    client.set_registered_model_alias(NAME, "champion", "2")
    measured(v1=16, v2=10)
    assert not promote(agent, 1).forced
    assert tags(client, "1")["promotion"] == "by the gate"
    assert "promotion_reason" not in tags(client, "1")
    assert client.get_run(forced.run_id).data.tags["oneturn.promotion"] == "forced", "the earlier run is unchanged"


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("too slow " * 30, "270 characters; a version's tag allows 250"),
        ("its key AKIA" + "Q7" * 8, "like a secret"),
    ],
    ids=["long", "secret"],
)
def test_invalid_reason_is_refused_before_the_evaluation(client, agent, reason, message):
    client.set_registered_model_alias(NAME, "champion", "1")
    with pytest.raises(ProgramError, match=message) as caught:
        promote(agent, force=True, reason=reason)
    assert "Q7" not in str(caught.value)
    assert champion(client) == "1"


@pytest.mark.parametrize("reason", [None, " "])
def test_force_without_a_reason_is_refused(client, agent, reason):
    with pytest.raises(ProgramError, match="needs a reason"):
        promote(agent, force=True, reason=reason)


def test_failing_champion_is_replaced_by_force_only(client, agent, measured):
    client.set_registered_model_alias(NAME, "champion", "1")
    measured(v1=ProgramError("Version 1 can't be run here: x"), v2=16)
    with pytest.raises(OneTurnError, match="can't be run here"):
        promote(agent)
    assert champion(client) == "1"
    assert promote(agent, force=True, reason="1 is broken").forced
    assert tags(client, "2")["gate"] == "Not compared: Version 1 can't be run here: x"
    assert champion(client) == "2"


def test_champion_without_a_model_is_replaced_by_force_only(client, agent, monkeypatch):
    gone = ModelVersion(NAME, "9", 0)
    monkeypatch.setattr(promotion, "champion_of", lambda *_: gone)
    monkeypatch.setattr(promotion, "evaluate_version", lambda agent, version, *_: evaluate_version(agent, gone, []))
    with pytest.raises(ProgramError, match=r"Version 9 of 'counting' can't be run here: its model can't be read"):
        promote(agent)
    assert promote(agent, force=True, reason="9 was deleted").forced
    assert (champion(client), tags(client, "2")["replaced"]) == ("2", "9")


def test_champion_of_another_kind_is_an_error(client, agent, monkeypatch, tmp_path):
    """The registered model may have served another kind of agent before."""
    (tmp_path / "MLmodel").write_text("flavors:\n  python_function:\n    loader_module: mlflow.sklearn\n")
    monkeypatch.setattr("mlflow.artifacts.download_artifacts", lambda *_, **__: str(tmp_path))
    with pytest.raises(ProgramError, match="can't be run here: it wasn't logged by oneturn"):
        evaluate_version(agent, client.get_model_version(NAME, "1"), agent.examples("dev"))


def test_gate_has_its_own_run_inside_an_active_run(client, agent, measured):
    client.set_registered_model_alias(NAME, "champion", "1")
    measured(v1=10, v2=16)
    with mlflow.start_run() as release:
        found = promote(agent)
    assert found.run_id != release.info.run_id
    assert client.get_run(found.run_id).data.tags["mlflow.parentRunId"] == release.info.run_id
    assert client.get_run(release.info.run_id).info.status == "FINISHED"


def test_the_first_champion_is_compared_with_its_own_uncompiled_program(client, agent, measured):
    measured(v1=5, uncompiled=5)
    assert not promote(agent, "1").moved
    measured(v1=12, uncompiled=4)
    found = promote(agent, "1")
    assert found.moved
    assert found.verdict.startswith("The rule holds: version 1 differs from version 1 uncompiled by +40.0%")
    assert (champion(client), tags(client, "1")["replaced"]) == ("1", "none")


def test_uncompiled_first_version_is_promoted_without_comparison(client, agent, monkeypatch):
    monkeypatch.setattr(promotion, "is_compiled", lambda version: False)
    found = promote(agent, "1")
    assert (found.moved, found.forced, found.result) == (True, False, None)
    assert tags(client, "1")["gate"] == "Not compared: there is no champion, and the version isn't compiled."


def test_dry_run_changes_nothing(client, agent, measured):
    client.set_registered_model_alias(NAME, "champion", "1")
    measured(v1=10, v2=16)
    found = promote(agent, dry_run=True)
    assert found.result.passed
    assert not found.moved
    assert (champion(client), tags(client, "2")) == ("1", {})


def test_too_few_examples_are_refused_before_any_lm_call(client, agent, monkeypatch):
    client.set_registered_model_alias(NAME, "champion", "1")
    monkeypatch.setattr(promotion, "evaluate_version", None)  # nothing is asked
    few = dataclasses.replace(agent, examples=lambda split: agent.examples(split)[:4])
    with pytest.raises(
        DataError, match=r"'dev' has 4 examples, and a comparison needs at least 10 \(gate.min_examples"
    ):
        promote(few, dry_run=True)


def test_each_version_is_announced_before_it_answers(client, agent, measured):
    client.set_registered_model_alias(NAME, "champion", "1")
    measured(v1=10, v2=16)
    lines = []
    promote(agent, dry_run=True, on_progress=lines.append)
    assert lines == [
        "The challenger, version 2, answers 20 examples of dev, in a process of its own.",
        "The champion, version 1, answers 20 examples of dev, in a process of its own.",
    ]


def test_champion_is_not_promoted_again(client, agent):
    client.set_registered_model_alias(NAME, "champion", "2")
    assert promote(agent, "2").verdict == "Version 2 already has the alias champion."


def test_concurrently_moved_alias_is_not_overwritten(client, agent, measured, monkeypatch):
    client.set_registered_model_alias(NAME, "champion", "1")
    measured(v1=10, v2=16)
    compare = promotion.compare

    def slow(*args: Any, **options: Any) -> Any:
        client.delete_registered_model_alias(NAME, "champion")
        return compare(*args, **options)

    monkeypatch.setattr(promotion, "compare", slow)
    with pytest.raises(ProgramError, match="was moved to version none during the comparison"):
        promote(agent)
    assert tags(client, "2") == {}


def test_invalid_version_is_an_error(client, agent):
    with pytest.raises(ProgramError, match=r"no version '7' of 'counting'; existing versions: 1, 2\."):
        promote(agent, 7)
    with pytest.raises(DataError, match="can't be compared on the test split"):
        promote(agent, split="test")


def command(registered: tuple[Path, str], *words: str) -> Result:
    files = ["--agent", str(registered[0] / "agent.py"), "--config", str(registered[0] / "config.yaml")]
    return CliRunner(env={"COLUMNS": "160"}).invoke(app, [*words, *files])


def test_command_prints_the_result(registered, client, measured):
    client.set_registered_model_alias(NAME, "champion", "2")
    measured(v1=10, v2=16)
    refused = command(registered, "promote", "1")
    assert refused.exit_code == 1
    assert "The rule doesn't hold: version 1 differs from version 2 by -30.0%" in refused.output
    assert "Version 1 of counting isn't the champion." in refused.output
    usage = command(registered, "promote", "1", "--force")
    assert usage.exit_code == 2
    assert "--reason" in usage.output
    assert champion(client) == "2"
    forced = command(registered, "promote", "1", "--force", "--reason", "a try")
    assert forced.exit_code == 0
    assert "Version 1 of counting is the champion now, by force; before: 2." in forced.output
    held = command(registered, "promote", "2", "--dry-run")
    assert (held.exit_code, champion(client)) == (0, "1")
    assert "Version 2 of counting could become the champion." in held.output
    already = command(registered, "promote", "1", "--dry-run")
    assert already.output.strip() == "Version 1 already has the alias champion."
    test = command(registered, "promote", "2", "--split", "test")
    assert test.exit_code == 1
    assert "can't be compared on the test split" in test.output


def test_diff_compares_a_registered_version_with_the_local_file(registered, client, agent):
    client.set_registered_model_alias(NAME, "champion", "1")
    same = command(registered, "diff", f"models:/{NAME}@champion")
    assert same.exit_code == 0, same.output
    assert "The prompts and their origin are the same." in same.output
    missing = command(registered, "diff", f"models:/{NAME}/9")
    assert missing.exit_code == 1
    assert f"models:/{NAME}/9 has no compiled program that can be read" in missing.output


def test_logged_model_records_its_interface(registered, client, agent):
    run = client.get_run(client.get_model_version(NAME, "1").run_id)
    interface = interface_of(agent.build())
    assert run.data.params["signature_sha256"] == interface.signature_sha256
    assert run.data.params["tools_sha256"] == interface.tools_sha256


def test_a_program_with_a_secret_is_not_logged(registered, client, agent, tmp_path):
    document = json.loads(agent.compiled_path.read_text())
    document["state"]["step"]["demos"] = [{"question": "Is AKIAABCDEFGHIJKLMNOP a key?"}]
    (tmp_path / "p.json").write_text(json.dumps(document))
    leaky = dataclasses.replace(agent, root=tmp_path, config=agent.config.model_copy(update={"compiled": "p.json"}))
    with pytest.raises(ProgramError, match=r"p\.json: state\.step\.demos\.0\.question looks like a secret"):
        oneturn.log_model(leaky)


def test_a_program_that_has_drifted_is_not_logged(registered, client, agent):
    drifted = dataclasses.replace(agent, build=lambda: oneturn.ReAct("question -> answer", tools=[], thoughts=False))
    with pytest.raises(ProgramError, match=r"output 'sure' \(boolean\) was removed"):
        oneturn.log_model(drifted)
