"""Labelled examples, worked out with the real tools, become demos that show whole runs."""

import re
from collections.abc import Callable
from typing import Any

import dspy
import pytest
from dspy.teleprompt import BootstrapFewShot
from mlflow.entities import Document

import oneturn
from oneturn.errors import ConfigError, ProgramError
from oneturn.programs.react import Demonstration, ScriptedTeacher


class Ask(dspy.Signature):
    """Answer from the shelf."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()
    citations: list[oneturn.Citation] = dspy.OutputField()


def find(query: str) -> list[Document]:
    """Find a book."""
    return [Document("The red book has 99 pages.", id="red")]


def example(question: str, answer: str, source: str) -> dspy.Example:
    return dspy.Example(question=question, answer=answer, source=source).with_inputs("question")


def solve(labelled: dspy.Example) -> Demonstration:
    outputs = {"answer": labelled.answer, "citations": [labelled.source]}
    return Demonstration(outputs, calls=[("find", {"query": labelled.question})])


def right(gold: dspy.Example, pred: dspy.Prediction, trace: object = None) -> bool:
    return pred.get("answer") == gold.answer


def test_a_worked_example_becomes_a_demo_of_the_whole_run():
    student = oneturn.ReAct(Ask, tools=[find], thoughts=False)
    trainset = [example("How thick is the red book?", "99 pages", "red")]
    teacher = ScriptedTeacher(student, trainset, solve)
    compiled = BootstrapFewShot(metric=right, max_labeled_demos=0).compile(student, teacher=teacher, trainset=trainset)
    (demo,) = compiled.step.demos
    assert demo.tool_call == {"name": "finish", "args": {"answer": "99 pages", "citations": ["red"]}}
    assert [turn["observation"] for turn in demo.trajectory] == ["[red] The red book has 99 pages."]


def test_a_solution_that_cites_what_its_tools_did_not_give_is_no_demo():
    student = oneturn.ReAct(Ask, tools=[find])
    labelled = example("How thick is the blue book?", "12 pages", "blue")
    teacher = ScriptedTeacher(student, [labelled], solve)
    assert teacher(question=labelled.question).toDict() == {}


def test_an_example_that_was_never_labelled_is_named():
    student = oneturn.ReAct(Ask, tools=[find])
    teacher = ScriptedTeacher(student, [], solve)
    with pytest.raises(ProgramError, match="No example has the inputs"):
        teacher(question="Who wrote it?")


def shelf(query: str) -> list[Document]:
    """Find books."""
    return [Document(f"The {colour} book has {len(colour)} pages.", id=colour) for colour in ("blue", "red", "black")]


def observed(documents: int | None, source: str = "black", tool: Callable[..., Any] = shelf) -> str:
    student = oneturn.ReAct(Ask, tools=[tool])
    labelled = example("How thick is it?", "5 pages", source)

    def script(row: dspy.Example) -> Demonstration:
        outputs = {"answer": row.answer, "citations": [row.source]}
        return Demonstration(outputs, calls=[(tool.__name__, {"query": "books"})])

    teacher = ScriptedTeacher(student, [labelled], script, documents)
    return str(teacher(question=labelled.question).trajectory[0].observation)


@pytest.mark.parametrize(
    ("documents", "shown"),
    [
        (None, ["blue", "red", "black"]),
        (1, ["black"]),
        (2, ["blue", "black"]),
        (9, ["blue", "red", "black"]),
    ],
)
def test_a_demo_shows_the_cited_documents_and_the_first_others(documents: int | None, shown: list[str]):
    assert re.findall(r"^\[(\w+)\]", observed(documents), re.MULTILINE) == shown


def test_a_demo_shows_a_text_with_sources_whole():
    def summary(query: str) -> oneturn.SourcedText:
        """Summarise books."""
        return oneturn.SourcedText("Two books: [red] and [black].", shelf(query))

    assert observed(1, tool=summary) == "Two books: [red] and [black]."


def test_a_demo_shows_what_its_later_calls_name_once_each():
    def read(colour: str) -> list[Document]:
        """Read a book."""
        return [Document(f"It is {colour}.", id=f"page-{colour}")]

    def twice(query: str) -> list[Document]:
        """Find books."""
        return [*shelf(query), *shelf(query)]

    student = oneturn.ReAct(Ask, tools=[twice, read])
    labelled = example("Which?", "red", "page-red")

    def script(row: dspy.Example) -> Demonstration:
        calls = [("twice", {"query": "books"}), ("read", {"colour": "red"})]
        return Demonstration({"answer": row.answer, "citations": [row.source]}, calls)

    first, second = ScriptedTeacher(student, [labelled], script, 1)(question=labelled.question).trajectory
    assert re.findall(r"^\[(\w+)\]", first.observation, re.MULTILINE) == ["red", "red"]
    assert second.observation == "[page-red] It is red."


@pytest.mark.parametrize("documents", [0, -1])
def test_a_demo_shows_at_least_one_document(documents: int):
    with pytest.raises(ConfigError, match=f"documents is {documents}; it must be at least 1"):
        observed(documents)
