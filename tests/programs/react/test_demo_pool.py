"""Demos chosen per question: which runs are chosen, how a pool is saved, and that every way of asking shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dspy
import pytest

import oneturn
from oneturn.errors import ProgramError
from oneturn.programs.react import DemoPool
from oneturn.programs.state import Manifest, load_compiled, save_compiled
from oneturn.testing import ScriptedLM, finish

QUESTIONS = ["What does shipping to Norway cost?", "When is the shop open?", "What does shipping to Spain cost?"]
MANIFEST = Manifest(recipe="r", lm="a/b", seed=0, created="", versions={}, dataset={}, scores={}, spend={})


def run(question: str) -> dict[str, Any]:
    call = {"name": "finish", "args": {"answer": f"about {question}"}}
    return {"augmented": True, "question": question, "trajectory": [], "tool_call": call}


def pool(k: int = 1) -> DemoPool:
    return DemoPool([run(question) for question in QUESTIONS], ["question"], k)


def look_up(query: str) -> str:
    """Look something up."""
    return query


def program(tool_calling: str = "auto") -> oneturn.ReAct:
    react = oneturn.ReAct("question -> answer", tools=[look_up], thoughts=False, tool_calling=tool_calling)
    react.step.demos = [run("The fixed one?")]
    react.demo_pool = pool()
    return react


def chosen(k: int, question: str) -> list[str]:
    return [demo["question"] for demo in pool(k).choose({"question": question})]


def test_most_similar_runs_are_chosen_the_most_similar_last():
    assert chosen(2, "Shipping cost to Spain?") == [QUESTIONS[0], QUESTIONS[2]]
    assert chosen(1, "When do you open the shop?") == [QUESTIONS[1]]
    assert chosen(2, "Shipping cost?") == [QUESTIONS[2], QUESTIONS[0]]  # equal: the first of the pool is nearest
    assert chosen(3, "xyzzy") == []


def test_run_of_the_question_itself_is_not_chosen():
    assert chosen(1, QUESTIONS[0]) == [QUESTIONS[2]]


def test_pool_needs_a_positive_number():
    with pytest.raises(ProgramError, match="k is 0"):
        pool(0)


@pytest.mark.parametrize("tool_calling", ["schema", "text", "native"])
def test_prompt_shows_the_chosen_run_behind_the_fixed_demo(tool_calling: str):
    with ScriptedLM(finish(answer="4 euros")) as lm, dspy.context(lm=lm):
        assert program(tool_calling)(question="And shipping to Norway?").answer == "4 euros"
    prompt = str(lm.requests[0].messages)
    places = [prompt.find(text) for text in ("The fixed one?", QUESTIONS[0], "And shipping to Norway?")]
    assert -1 not in places
    assert places == sorted(places)
    assert QUESTIONS[1] not in prompt


def test_saved_pool_is_loaded_and_another_program_has_none(tmp_path: Path):
    path, plain = tmp_path / "pool.json", tmp_path / "plain.json"
    save_compiled(program(), MANIFEST, path)
    loaded = oneturn.ReAct("question -> answer", tools=[look_up], thoughts=False)
    load_compiled(loaded, path)
    assert loaded.demo_pool is not None
    assert (loaded.demo_pool.k, [each["question"] for each in loaded.demo_pool.runs]) == (1, QUESTIONS)
    (demo,) = loaded.demo_pool.choose({"question": "shop"})
    assert (demo["question"], demo["tool_call"].args) == (QUESTIONS[1], run(QUESTIONS[1])["tool_call"]["args"])
    save_compiled(loaded, MANIFEST, plain)
    assert plain.read_text() == path.read_text()
    without = program()
    without.demo_pool = None
    save_compiled(without, MANIFEST, plain)
    load_compiled(loaded, plain)
    assert loaded.demo_pool is None


def test_pool_of_a_nested_agent_is_saved(tmp_path: Path):
    class Outer(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.agent = program()

        def forward(self, question: str) -> dspy.Prediction:
            return self.agent(question=question)

    save_compiled(Outer(), MANIFEST, tmp_path / "nested.json")
    loaded = Outer()
    loaded.agent.demo_pool = None
    load_compiled(loaded, tmp_path / "nested.json")
    assert loaded.agent.demo_pool is not None
    assert len(loaded.agent.demo_pool.runs) == 3


def test_damaged_pool_is_an_error_that_names_the_place(tmp_path: Path):
    path = tmp_path / "pool.json"
    save_compiled(program(), MANIFEST, path)
    path.write_text(path.read_text().replace('"k": 1', '"k": 0'))
    with pytest.raises(ProgramError, match=r"state\.demo_pool\.k is invalid"):
        load_compiled(program(), path)


def test_copies_are_independent_and_optimizers_reset_them():
    react = program()
    copy = react.deepcopy()
    assert react.reset_copy().demo_pool.runs == []
    assert len(copy.demo_pool.runs) == len(react.demo_pool.runs) == 3
