"""A compiled program whose prompts repeat rows of dev or test is neither saved nor promoted without a reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import dspy
import pytest

import oneturn
from oneturn.agent import Agent, load_agent
from oneturn.datasets.overlap import RowSequences, repeated_rows
from oneturn.errors import ProgramError
from oneturn.programs.state import read_compiled, read_manifest
from tests.compilation.agent import ANSWERED, agent

QUESTION = "Which of the two plans includes repairs of the grinder at no charge?"
OTHER = "How many days do I have to send an unopened machine back to you?"
TRAIN = "What is the price of three bags of the house beans with a discount?"


def sequences(**known: Any) -> RowSequences:
    rows = {
        "dev": [
            {"id": "dev-1", "question": QUESTION, "answer": "the plan that is called Care, which you can end monthly"}
        ],
        "test": [{"question": OTHER, "answer": "30 days"}],
    }
    return RowSequences(rows, ["question"], ["answer"], known.get("known", []))


def test_instruction_that_quotes_a_row_is_found_with_its_share():
    quoted = f"Be brief. For example, {QUESTION.lower().rstrip('?')} -> Care."
    (found,) = sequences().repeated_in({"step instructions": quoted}, {})
    assert (found.row, found.split, found.field, found.share) == ("dev-1", "dev", "question", 1.0)
    assert str(found) == f"dev-1 (dev), question, 100% of it in step instructions: {QUESTION}"


@pytest.mark.parametrize("text", [
    "Say which of the two plans includes repairs of the grinder.",  # a part
    "Answer from the handbook; how many days do I have to wait?",
    "",
])  # fmt: skip
def test_short_common_phrases_are_not_found(text: str):
    assert [row.share for row in sequences().repeated_in({"step instructions": text}, {}) if row.share < 0.5] == []
    assert not [row for row in sequences().repeated_in({"step instructions": text}, {}) if row.row != "dev-1"]


def test_answers_count_in_instructions_but_not_in_demos_which_quote_passages():
    text = "It is the plan that is called Care, which you can end monthly."
    assert [row.field for row in sequences().repeated_in({"step instructions": text}, {})] == ["answer"]
    assert sequences().repeated_in({}, {"step demo 1": text}) == []
    assert [row.row for row in sequences().repeated_in({}, {"step demo 1": OTHER})] == ["row 1"]


def test_texts_that_prompts_may_repeat_are_ignored():
    assert sequences(known=[QUESTION]).repeated_in({"step instructions": QUESTION}, {}) == []


def test_shipped_program_and_training_rows_as_demos_raise_no_alarm():
    desk = load_agent("agent.py")
    state = read_compiled(desk.compiled_path)[1]
    assert repeated_rows(desk, state) == []
    demos = [example.toDict() for example in desk.examples("train")]
    assert repeated_rows(desk, {"step": {**state["step"], "demos": demos}}) == []
    leaked = desk.examples("dev")[0].toDict()
    assert [row.row for row in repeated_rows(desk, {"step": {**state["step"], "demos": [leaked]}})] == [leaked["id"]]


def examples(split: str) -> list[dspy.Example]:
    questions = {"train": [TRAIN], "dev": [QUESTION, OTHER], "test": [OTHER]}[split]
    return [
        dspy.Example(id=f"{split}-{n}", question=q, answer=q).with_inputs("question") for n, q in enumerate(questions)
    ]


def quoting(student: Any, **_: Any) -> Any:
    compiled = student.deepcopy()
    compiled.step.signature = compiled.step.signature.with_instructions(f"Repeat it, such as: {QUESTION}")
    return compiled


def leaking(folder: Path) -> Agent:
    return replace(agent(folder, recipe="quoting"), examples=examples, recipes={"quoting": quoting})


def test_program_that_quotes_a_dev_row_is_not_saved_without_a_reason(tmp_path: Path):
    with pytest.raises(ProgramError, match=r"isn't saved.*\n  - dev-0 \(dev\), question, 100% of it in step instr"):
        oneturn.compile(leaking(tmp_path), prefer=1)
    assert not (tmp_path / "compiled.json").exists()
    before = (tmp_path / ANSWERED).read_text()
    oneturn.compile(leaking(tmp_path), prefer=1, allow_overlap="the row is public")
    assert (tmp_path / ANSWERED).read_text() == before
    overlap = read_manifest(tmp_path / "compiled.json").overlap
    assert overlap is not None
    assert overlap["reason"] == "the row is public"
    assert overlap["rows"][0].startswith("dev-0 (dev)")


def test_uncompiled_prompts_may_quote_rows(tmp_path: Path):
    oneturn.compile(leaking(tmp_path), prefer=0)
    assert read_manifest(tmp_path / "compiled.json").overlap is None
