"""Labelled examples, worked out with the real tools, become demos that show whole runs."""

import dspy
import pytest
from dspy.teleprompt import BootstrapFewShot
from mlflow.entities import Document

import oneturn
from oneturn.errors import ProgramError
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
