"""Programs with inputs that aren't JSON compile, are saved, and load; what can't be saved is refused before a call."""

from __future__ import annotations

import datetime
import enum
from pathlib import Path
from typing import Any

import dspy
import pytest

import oneturn
from oneturn.agent import Agent
from oneturn.errors import DataError, ProgramError
from oneturn.testing import ScriptedLM, finish


class Colour(enum.Enum):
    RED = "r"
    BLUE = "b"


class Opaque:
    """Has no JSON form."""


def boot(student: Any, *, trainset: Any, metric: Any) -> Any:
    """Bootstrap two demos."""
    optimizer = dspy.BootstrapFewShot(metric=metric, max_bootstrapped_demos=2, max_labeled_demos=0)
    return optimizer.compile(student, trainset=trainset)


def right(gold: Any, pred: Any, trace: Any = None) -> float:
    return float(pred.answer == gold.answer)


def agent(folder: Path, kind: Any, value: Any, lm: ScriptedLM, name: str = "given", metric: Any = right) -> Agent:
    class Typed(Agent):
        def lm(self) -> dspy.BaseLM:
            return lm

    signature = dspy.Signature("question -> answer").insert(1, name, dspy.InputField(), kind)

    def examples(split: str) -> list[dspy.Example]:
        rows = [{"question": f"{split}{number}", name: value, "answer": "ok"} for number in range(3)]
        return [dspy.Example(**row).with_inputs("question", name) for row in rows]

    return Typed(
        name="typed",
        config=oneturn.AgentConfig.read({"compiled": "compiled.json", "compile": {"recipe": "boot"}}),
        build=lambda: oneturn.ReAct(signature, tools=[]),
        metric=metric,
        examples=examples,
        recipes={"boot": boot},
        root=folder,
        code_paths=(),
        example_questions=("one",),
    )


@pytest.mark.parametrize(
    ("kind", "value", "name"),
    [
        (datetime.date, datetime.date(2026, 1, 2), "given"),
        (datetime.datetime, datetime.datetime(2026, 1, 2, 3, tzinfo=datetime.timezone.utc), "given"),
        (Colour, Colour.BLUE, "given"),
        (set[str], {"one", "two"}, "given"),
        (dspy.History, dspy.History(messages=[{"question": "earlier", "answer": "b"}]), "history"),
        (dspy.Image, dspy.Image("data:image/png;base64,AAAA"), "given"),
    ],
    ids=["date", "datetime", "enum", "set", "history", "image"],
)
def test_typed_input_is_compiled_saved_and_loaded(kind: Any, value: Any, name: str, tmp_path: Path):
    with ScriptedLM(*[finish(answer="ok")] * 8) as lm:  # 3 dev examples before and after, 2 demos
        made = agent(tmp_path, kind, value, lm, name)
        oneturn.compile(made)
    program = made.program()
    demos = program.step.demos
    assert len(demos) == 2
    if kind is dspy.Image:
        assert "data:image/png;base64,AAAA" in str(demos[0][name]), "as DSPy reads it"
    else:
        assert demos[0][name] == value
    with ScriptedLM(finish(answer="yes")) as asked:
        program.set_lm(asked)
        assert program(**{"question": "now", name: value}).answer == "yes"


def test_input_that_cannot_be_saved_is_refused_before_the_first_call(tmp_path: Path):
    with (
        ScriptedLM() as lm,
        pytest.raises(ProgramError, match=r"given = .*can't be saved in a compiled program: Opaque"),
    ):
        oneturn.compile(agent(tmp_path, Any, Opaque(), lm))
    assert lm.requests == []


def test_column_that_the_metric_needs_is_missed_before_the_first_call(tmp_path: Path):
    def by_category(gold: Any, pred: Any, trace: Any = None) -> float:
        return float(gold.category == pred.answer)

    with ScriptedLM() as lm, pytest.raises(DataError, match="needs the column 'category', and no row has it"):
        oneturn.compile(agent(tmp_path, str, "x", lm, metric=by_category))
    assert lm.requests == []
