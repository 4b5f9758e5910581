"""The engine's recipes need no column and no metric of an agent's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dspy
import pytest
from mlflow.entities import Document

import oneturn
from oneturn.compilation import recipes, with_options
from oneturn.compilation.recipes.calling import format_recipes
from oneturn.compilation.recipes.demos import DEMOS
from oneturn.compilation.recipes.work import work_of
from oneturn.errors import ConfigError
from oneturn.programs.react import Demonstration


def search(query: str) -> list[Document]:
    """Find passages."""
    return [Document(page_content=f"All about {query}.", id=query)]


class Answer(dspy.Signature):
    """Answer."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()
    citations: list[oneturn.Citation] = dspy.OutputField()


def program() -> oneturn.ReAct:
    return oneturn.ReAct(Answer, tools=[search], thoughts=False)


def example(number: int, **columns: Any) -> dspy.Example:
    labels = {"question": f"Q{number}?", "answer": f"A{number}", "citations": [f"p{number}"]}
    return dspy.Example(**labels, **columns).with_inputs("question")


def called(number: int, **columns: Any) -> dspy.Example:
    return example(number, expected_tool_calls=[{"name": "search", "arguments": {"query": f"p{number}"}}], **columns)


def metric(gold: Any, pred: Any, trace: Any = None) -> bool:
    return bool(pred.answer == gold.answer)


def scripted(trainset: list[dspy.Example], **options: Any) -> dspy.Module:
    return recipes.scripted(program(), trainset=trainset, metric=metric, seed=0, **options)


def test_examples_without_a_category_give_four_demos_with_their_expected_calls():
    demos = scripted([called(number) for number in range(9)]).step.demos
    assert len(demos) == DEMOS
    for demo in demos:
        (turn,) = demo["trajectory"]
        assert turn["tool_call"]["args"]["query"] == demo["question"].lower().replace("q", "p").strip("?")


def test_one_demo_of_each_category():
    demos = scripted([called(number, category="odd" if number % 2 else "even") for number in range(9)]).step.demos
    assert {int(demo["question"][1:-1]) % 2 for demo in demos} == {0, 1}
    assert len(demos) == 2


def test_example_whose_calls_are_unknown_is_left_out():
    (demo,) = scripted([example(1), called(2), dspy.Example(question="Q3?").with_inputs("question")]).step.demos
    assert demo["question"] == "Q2?"


def test_no_example_that_can_be_worked_out_is_an_error():
    with pytest.raises(ConfigError, match=r"can't work out a training example: .* expected_tool_calls"):
        scripted([example(1)])


def test_program_without_steps_is_an_error():
    with pytest.raises(ConfigError, match=r"for a oneturn\.ReAct, not for a Predict"):
        recipes.scripted(dspy.Predict(Answer), trainset=[called(1)], metric=metric, seed=0)


def test_option_changes_how_examples_are_worked_out_and_keeps_the_description():
    def solve(row: dspy.Example) -> Demonstration:
        return Demonstration({"answer": row.answer, "citations": ["p"]}, [("search", {"query": "p"})])

    own = with_options(recipes.scripted, solve=solve)
    compiled = own(program(), trainset=[example(1)], valset=[], metric=metric, seed=0, threads=1)
    assert compiled.step.demos[0]["tool_call"]["args"]["citations"] == ["p"]
    assert format_recipes({"x": own}) == format_recipes({"x": recipes.scripted})
    assert work_of(own, 3, 4) == work_of(recipes.scripted, 3, 4)


def test_unknown_option_is_an_error():
    with pytest.raises(ConfigError, match="The recipe scripted has no option 'solver'; its options are solve"):
        with_options(recipes.scripted, solver=print)


def test_agent_that_declares_no_recipes_has_all(tmp_path: Path):
    config = oneturn.AgentConfig.read({})
    agent = oneturn.Agent("mine", config, program, metric)
    assert recipes.recipes_of(agent) == recipes.RECIPES
    assert recipes.recipes_of(oneturn.Agent("mine", config, program, metric, recipes={})) == {}
