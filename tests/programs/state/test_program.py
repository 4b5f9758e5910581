"""A compiled program is one JSON file that brings back the same prompt, and holds no LM and no secret."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest

import oneturn
from oneturn.errors import ProgramError
from oneturn.programs.react import Demonstration, ScriptedTeacher
from oneturn.programs.state import Manifest, load_compiled, read_manifest, save_compiled
from oneturn.programs.state.interface import interface_of
from oneturn.testing import ScriptedLM, finish


def look_up(item: str) -> str:
    """Look up a price."""
    return "4"


def program(signature: str = "question -> answer", **options: Any) -> oneturn.ReAct:
    return oneturn.ReAct(signature, tools=[look_up], **options)


MANIFEST = Manifest(
    recipe="scripted",
    lm="scripted/lm",
    seed=3,
    created="2026-01-01T00:00:00+00:00",
    versions={"oneturn": "0.1.0"},
    dataset={"train": "a" * 64},
    scores={"before": {"score": 0.25}, "after": {"score": 0.75}},
    spend={"lm_calls": 12.0},
    interface=interface_of(program()),
)
SECRET = "sk-do-not-tell"


def compiled() -> oneturn.ReAct:
    made = program()
    made.step.signature = made.step.signature.with_instructions("Sei höflich.")
    labelled = dspy.Example(question="Tea?", answer="4 €").with_inputs("question")
    teacher = ScriptedTeacher(
        made, [labelled], lambda e: Demonstration({"answer": e.answer}, calls=[("look_up", {"item": "tea"})])
    )
    optimizer = dspy.BootstrapFewShot(metric=lambda gold, pred, trace=None: True, max_labeled_demos=0)
    return optimizer.compile(made, teacher=teacher, trainset=[labelled])


def prompt_of(agent: oneturn.ReAct) -> Any:
    with ScriptedLM(finish(answer="x")) as lm, dspy.context(lm=lm):
        agent(question="And coffee?")
    return lm.requests[0].messages


def test_what_was_saved_is_what_is_loaded(tmp_path: Path):
    path = tmp_path / "new" / "program.json"
    saved, loaded = compiled(), program()
    save_compiled(saved, MANIFEST, path)
    assert load_compiled(loaded, path) == MANIFEST == read_manifest(path)
    assert prompt_of(loaded) == prompt_of(saved)
    assert len(prompt_of(loaded)) == 6
    assert prompt_of(loaded)[0]["content"].startswith("Sei höflich.")
    again = tmp_path / "again.json"
    save_compiled(loaded, MANIFEST, again)
    assert again.read_text() == path.read_text()


def test_neither_lm_nor_secret_gets_into_the_file(tmp_path: Path):
    made = compiled()
    made.set_lm(dspy.LM("openai/secretive", api_key=SECRET, api_base=f"http://{SECRET}.example"))
    save_compiled(made, MANIFEST, tmp_path / "program.json")
    text = (tmp_path / "program.json").read_text()
    assert SECRET not in text
    assert "secretive" not in text
    loaded = program()
    load_compiled(loaded, tmp_path / "program.json")
    assert loaded.step.lm is None


def test_the_file_is_for_people_too(tmp_path: Path):
    save_compiled(compiled(), MANIFEST, tmp_path / "program.json")
    text = (tmp_path / "program.json").read_text(encoding="utf-8")
    assert "Sei höflich." in text
    assert list(json.loads(text)) == ["manifest", "state"]
    assert text.endswith("}\n")


def test_a_file_that_can_not_be_written_leaves_the_old_one(tmp_path: Path):
    path = tmp_path / "program.json"
    save_compiled(compiled(), MANIFEST, path)
    before = path.read_text()
    unwritable = compiled()
    unwritable.step.signature = unwritable.step.signature.with_instructions("key: " + "sk-proj-" + "a1B2" * 12)
    with pytest.raises(ProgramError):
        save_compiled(unwritable, MANIFEST, path)
    assert path.read_text() == before
    assert [found.name for found in tmp_path.iterdir()] == ["program.json"]


def other(document: dict[str, Any]) -> dict[str, Any]:
    return {**document, "state": {"predict": document["state"]["step"]}}


def damaged(change: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A document whose predictor's state somebody has edited by hand."""

    def of(document: dict[str, Any]) -> dict[str, Any]:
        change(document["state"]["step"])
        return document

    return of


BROKEN = [
    (None, "There is no compiled program {path}. Create one with: oneturn compile"),
    ("{", "{path} is not JSON ("),
    ("[]", "{path} lacks a manifest or a state. Compile again with: oneturn compile"),
    ('{"manifest": {}}', "{path} lacks a manifest or a state. Compile again with: oneturn compile"),
    (b"\xff\xfe", "{path} is not JSON ('utf-8' codec"),
    ('{"manifest": {}, "state": []}', "{path}: state isn't a mapping of predictors."),
    ('{"manifest": {}, "state": null}', "{path}: state isn't a mapping of predictors."),
    ('{"manifest": {}, "state": {}}', "{path} was compiled for predictors [], the program has ['step']."),
    (lambda d: {**d, "manifest": {}}, "{path}: manifest.recipe is invalid: Field required."),
    (lambda d: {**d, "manifest": []}, "{path}: manifest is invalid: Input should be a valid dictionary"),
    (lambda d: {**d, "state": {"step": None}}, "{path}: state.step is invalid: Input should be a valid dictionary"),
    (damaged(dict.clear), "{path}: state.step.signature is invalid: Field required."),
    (damaged(lambda step: step.pop("demos")), "{path}: state.step.demos is invalid: Field required."),
    (
        damaged(lambda step: step.update(demos=["Tea?"])),
        "{path}: state.step.demos.0 is invalid: Input should be a valid",
    ),
    (
        damaged(lambda step: step["signature"]["fields"].pop()),
        "{path}: state.step has 3 fields, but its manifest lists 4.",
    ),
    (other, "{path} was compiled for predictors ['predict'], the program has ['step']. Compile it again."),
]


@pytest.mark.parametrize(("content", "message"), BROKEN, ids=[message for _, message in BROKEN])
def test_a_file_that_is_no_compiled_program_of_this_kind_is_refused(tmp_path: Path, content: Any, message: str):
    path = tmp_path / "program.json"
    if callable(content):
        save_compiled(compiled(), MANIFEST, path)
        content = json.dumps(content(json.loads(path.read_text())))
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    agent = program()
    with pytest.raises(ProgramError) as caught:
        load_compiled(agent, path)
    assert str(caught.value).startswith(message.replace("{path}", str(path)))
    assert len(prompt_of(agent)) == 2, "the program is as it was"


def test_a_folder_is_no_compiled_program(tmp_path: Path):
    with pytest.raises(ProgramError, match=r"can't be read: Is a directory\."):
        load_compiled(program(), tmp_path)


def test_half_a_character_that_an_lm_wrote_does_not_lose_the_compile(tmp_path: Path):
    made, loaded = compiled(), program()
    made.step.demos[0]["question"] = "Tea \ud83d"
    save_compiled(made, MANIFEST, tmp_path / "program.json")
    load_compiled(loaded, tmp_path / "program.json")
    assert loaded.step.demos[0]["question"] == "Tea \ud83d"
    save_compiled(loaded, MANIFEST, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "program.json").read_bytes()


def test_a_program_with_a_secret_in_a_demo_is_not_saved(tmp_path: Path):
    made = compiled()
    made.step.demos[0]["question"] = "Does ghp_a1b2c3d4e5f6g7h8i9j0k1 still work?"
    path = tmp_path / "program.json"
    with pytest.raises(ProgramError, match=r"state\.step\.demos\.0\.question looks like a secret"):
        save_compiled(made, MANIFEST, path)
    assert not path.exists()


def test_a_lone_predictor_is_saved_and_loaded_without_its_lm(tmp_path: Path):
    made = dspy.Predict(dspy.Signature("question -> answer", "Be quick."))
    made.lm = dspy.LM("openai/secretive")
    save_compiled(made, MANIFEST.model_copy(update={"interface": None}), tmp_path / "program.json")
    assert "secretive" not in (tmp_path / "program.json").read_text()
    loaded = dspy.Predict("question -> answer")
    load_compiled(loaded, tmp_path / "program.json")
    assert loaded.signature.instructions == "Be quick."
