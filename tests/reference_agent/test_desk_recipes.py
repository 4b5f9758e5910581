"""The support desk's recipes, configurations and examples."""

from __future__ import annotations

from pathlib import Path

import dspy
import pytest

import oneturn
from agent import AGENT
from oneturn import AgentConfig
from oneturn.compilation.recipes.calling import format_recipes
from oneturn.datasets import check_data
from oneturn.evaluation.metric_columns import required_columns
from optimizers.metric import support_metric
from optimizers.recipes import DOCUMENTS, RECIPES
from optimizers.scripted import solve

ROOT = Path(__file__).resolve().parents[2]


def test_each_recipe_says_when_to_use_it():
    lines = format_recipes(RECIPES).splitlines()
    assert len(lines) == len(RECIPES)
    assert all(line.count("Use it ") == 1 for line in lines)


@pytest.mark.parametrize("name", ["dev", "prod", "staging"])
def test_configurations_can_be_read(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    assert AgentConfig.read(f"configs/{name}.yaml").mlflow.model_name.endswith("support_desk")


def test_shipped_examples_are_clean():
    report = check_data(AGENT, progress=False)
    assert report.findings == ()
    assert report.rows == {"train": 99, "dev": 99, "test": 129}
    counts = {balance.field: balance.counts for balance in report.balances}
    assert counts.keys() == {"category", "style", "answerable"}
    plain = {"train": 54, "dev": 54, "test": 84}  # these rows have no style: the schema's default counts
    assert counts["style"] == {"natural": dict.fromkeys(plain, 45), "plain": plain}


def test_columns_that_the_metric_needs():
    assert required_columns(support_metric) == {"answerable", "answer", "citations"}


def test_example_question_is_the_input_example():
    question = AGENT.example_request()["input"][0]["content"]
    assert question == AGENT.example_questions[0]


@pytest.mark.parametrize("seed", range(4))
def test_support_desk_has_a_demo_of_each_category_that_read_what_it_cites(seed: int):
    support_desk = oneturn.load_agent(ROOT / "agent.py", ROOT / "configs" / "dev.yaml")
    train = support_desk.examples("train")
    student = support_desk.program(compiled=False)
    compiled = RECIPES["scripted"](student, trainset=train, valset=[], metric=support_desk.metric, seed=seed, threads=1)
    questions = [demo["question"] for demo in compiled.step.demos]
    assert {example.category for example in train if example.question in questions} == {row.category for row in train}
    for demo in compiled.step.demos:
        read = " ".join(turn["observation"] for turn in demo["trajectory"])
        assert all(f"[{source}]" in read for source in demo["tool_call"]["args"]["citations"])


@pytest.mark.parametrize("example", AGENT.examples("train"), ids=lambda example: example.id)
def test_each_step_of_a_demonstration_has_a_thought(example: dspy.Example):
    demonstration = solve(example)
    assert len(demonstration.thoughts) == len(demonstration.calls) + 1
    assert all(0 < len(thought) < 250 for thought in demonstration.thoughts)
    if example.expression:
        place = [name for name, _ in demonstration.calls].index("calculate")
        assert demonstration.thoughts[place] == "; ".join(example.facts)


def test_demos_show_few_passages():
    student = AGENT.program(compiled=False)
    arguments = {"trainset": AGENT.examples("train"), "valset": [], "metric": AGENT.metric, "seed": 0, "threads": 1}
    compiled = RECIPES["scripted"](student, **arguments)
    for demo in compiled.step.demos:
        searched = [turn for turn in demo["trajectory"] if turn["tool_call"]["name"] == "search_handbook"]
        cited = demo["tool_call"]["args"]["citations"]
        assert all(turn["observation"].count("\n") < max(DOCUMENTS, len(cited)) for turn in searched)
