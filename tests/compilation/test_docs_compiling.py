"""The examples in docs/compiling.md and compiling-reference.md work as described."""

from __future__ import annotations

from pathlib import Path

import dspy

import oneturn
from oneturn.compilation import Work
from oneturn.compilation.recipes import RECIPES
from oneturn.compilation.recipes.calling import format_recipes
from oneturn.compilation.recipes.work import work_of
from tests.compilation.agent import agent
from tests.test_docs_examples import examples


def test_custom_recipe_example_compiles(tmp_path: Path):
    own, *_ = examples("compiling-reference.md")
    taught = agent(tmp_path)
    object.__setattr__(taught, "recipes", {"mine": own["mine"]})
    done = oneturn.compile(taught, recipe="mine")
    assert len(done.program.step.demos) == 3
    assert format_recipes({"mine": own["mine"]}).startswith("  mine  Use it to see what three right runs bring. Then: ")


def test_worked_example_shows_the_call_that_solve_returns():
    _, worked, *_ = examples("compiling-reference.md")

    def search(query: str) -> str:
        """Search."""
        return "4 euros"

    example = dspy.Example(question="fees", answer="4 euros").with_inputs("question")
    program = oneturn.ReAct("question -> answer", tools=[search], thoughts=False)
    scripted = worked["RECIPES"]["scripted"]
    compiled = scripted(
        program, trainset=[example], metric=lambda gold, pred, trace: pred.answer == gold.answer, seed=0
    )
    assert compiled.step.demos[0]["trajectory"][0]["observation"] == "4 euros"
    assert worked["RECIPES"].keys() == RECIPES.keys()


def test_work_example_declares_its_work():
    _, _, declared, *_ = examples("compiling-reference.md")
    work = work_of(declared["mine"], 10, 20)
    assert work == Work(runs=(20, 80), reflections=(0, 10), prompt_growth=(1, 3))


def test_page_lists_every_recipe():
    page = Path("docs/compiling.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in page for name in RECIPES)


def test_compare_example_applies_the_rule(tmp_path: Path):
    *_, compared = examples("compiling-reference.md")
    taught = agent(tmp_path)
    passed, reasons, report = compared["better"](taught, *[taught.program(compiled=False)] * 2, taught.lm())
    assert not passed
    assert "lower bound" in " ".join(reasons)
    assert "lower bound" in report
