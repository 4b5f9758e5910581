"""The order of the outputs in ``finish``: the answer last, but in a program that was compiled with another order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dspy
import pytest

from oneturn import ReAct
from oneturn.core.steps import AnswerDelta
from oneturn.errors import ProgramError
from oneturn.programs.state import Manifest, finish_order_of, load_compiled, save_compiled
from oneturn.programs.state.interface import interface_of
from oneturn.testing import ScriptedLM, finish
from tests.programs.react.chat_stub import calls, chat_stub


class Priced(dspy.Signature):
    """Say what it costs."""

    question: str = dspy.InputField()
    history: dspy.History = dspy.InputField(default=dspy.History(messages=[]))
    answer: str = dspy.OutputField()
    euros: int = dspy.OutputField()
    sure: bool = dspy.OutputField()


LAST, DECLARED = ["euros", "sure", "answer"], ["answer", "euros", "sure"]
OUTPUTS = {"euros": 4, "sure": True, "answer": "Four euros."}


def program(**options: Any) -> ReAct:
    return ReAct(Priced, tools=[], **options)


@pytest.mark.parametrize("tool_calling", ["native", "schema", "text"])
@pytest.mark.parametrize(("answer_last", "order"), [(True, LAST), (False, DECLARED)])
def test_an_lm_behind_an_api_gets_the_answer_last(tool_calling: str, answer_last: bool, order: list[str]):
    reply = json.dumps(finish(**OUTPUTS)) if tool_calling != "native" else calls(("finish", OUTPUTS))
    agent = program(tool_calling=tool_calling, answer_last=answer_last)
    with chat_stub(reply) as stub:
        agent.set_lm(stub.lm())
        texts = [step for step in agent.steps(question="?") if isinstance(step, AnswerDelta)]
    (request,) = stub.requests
    if tool_calling == "native":
        (function,) = request["tools"]
        assert list(function["function"]["parameters"]["properties"]) == order
    else:
        prompt = request["messages"][0]["content"]
        places = [prompt.rindex(name) for name in order]
        assert places == sorted(places)
    if tool_calling == "schema":
        step = request["response_format"]["json_schema"]["schema"]["properties"]["tool_call"]
        assert list(step["properties"]["args"]["properties"]) == order
    assert "".join(text.text for text in texts) == "Four euros."
    assert all(text.checked for text in texts)


def test_demos_and_earlier_turns_have_the_order_too():
    agent = program()
    agent.step.demos = [dspy.Example(question="Tea?", answer="Four euros.", euros=4, sure=True)]
    past = [{"question": "Milk?", "answer": "One euro.", "euros": 1, "sure": True}]
    with ScriptedLM(finish(**OUTPUTS)) as lm, dspy.context(lm=lm):
        agent(question="Coffee?", history=dspy.History(messages=past))
    steps = [json.loads(each["content"]) for each in lm.requests[0].messages if each["role"] == "assistant"]
    assert [list(step["tool_call"]["args"]) for step in steps] == [LAST, LAST]


def test_the_prediction_has_the_declared_order():
    with ScriptedLM(finish(**OUTPUTS)) as lm, dspy.context(lm=lm):
        prediction = program()(question="?")
    assert [name for name in prediction.toDict() if name != "trajectory"] == DECLARED


# ---- compiled programs


def saved(agent: dspy.Module, path: Path, **fields: Any) -> Path:
    manifest = Manifest(
        recipe="r",
        lm="scripted/lm",
        seed=0,
        created="2026-01-01T00:00:00+00:00",
        versions={},
        dataset={},
        scores={},
        spend={},
        interface=interface_of(agent),
        **fields,
    )
    save_compiled(agent, manifest, path)
    return path


@pytest.mark.parametrize(("answer_last", "order"), [(True, LAST), (False, DECLARED)])
@pytest.mark.parametrize("loaded_into", [True, False])
def test_a_compiled_program_keeps_its_order(answer_last: bool, order: list[str], loaded_into: bool, tmp_path: Path):
    agent = program(answer_last=answer_last)
    path = saved(agent, tmp_path / "compiled.json", finish_order=finish_order_of(agent))
    loaded = program(answer_last=loaded_into)
    assert load_compiled(loaded, path).finish_order == {"self": order}
    assert list(loaded.steps_schema.outputs) == order


def test_a_file_without_the_order_has_the_declared_one(tmp_path: Path):
    path = saved(program(answer_last=False), tmp_path / "compiled.json")
    document = json.loads(path.read_text())
    del document["manifest"]["finish_order"]
    path.write_text(json.dumps(document))
    loaded = program()
    load_compiled(loaded, path)
    assert list(loaded.steps_schema.outputs) == DECLARED


def test_the_order_of_an_agent_inside_a_module_is_kept(tmp_path: Path):
    class Outer(dspy.Module):
        def __init__(self, **options: Any) -> None:
            super().__init__()
            self.agent = program(**options)

        def forward(self, question: str) -> dspy.Prediction:
            return self.agent(question=question)

    outer = Outer(answer_last=False)
    path = saved(outer, tmp_path / "compiled.json", finish_order=finish_order_of(outer))
    loaded = Outer()
    load_compiled(loaded, path)
    assert finish_order_of(loaded) == {"self.agent": DECLARED}


def test_other_names_are_no_order():
    with pytest.raises(ProgramError, match="The outputs of Priced are answer, euros, sure; got answer, price"):
        program().order_outputs(["answer", "price"])
