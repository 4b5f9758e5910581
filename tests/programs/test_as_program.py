"""What can be served: the signature of a module, found or given, and what is refused."""

from __future__ import annotations

import types
from typing import Any

import dspy
import pytest

from oneturn import ReAct, ResponsesAdapter
from oneturn.core.steps import Answer
from oneturn.errors import ProgramError
from oneturn.programs import ModuleProgram, as_program
from oneturn.testing import ScriptedLM, finish


class Retrieving(dspy.Module):
    """Takes a question, and finds the context by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.respond = dspy.ChainOfThought("context: list[str], question -> answer, sure: bool")

    def forward(self, question: str) -> dspy.Prediction:
        return self.respond(context=["Tea costs 4 euros."], question=question)


class TwoSteps(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.plan = dspy.Predict("question -> plan")
        self.respond = dspy.Predict("question, plan -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        return self.respond(question=question, plan=self.plan(question=question).plan)


def fields(program: Any) -> tuple[list[str], list[str]]:
    return list(program.signature.input_fields), list(program.signature.output_fields)


@pytest.mark.parametrize(
    ("module", "inputs", "outputs"),
    [
        (dspy.Predict("text -> label"), ["text"], ["label"]),
        (dspy.ChainOfThought("question -> answer"), ["question"], ["answer"]),
        (dspy.ReAct("question -> answer, n: int", tools=[]), ["question"], ["answer", "n"]),
        (dspy.ReActV2("question -> answer", tools=[]), ["question", "history"], ["answer"]),
        (Retrieving(), ["question"], ["answer", "sure"]),
    ],
)
def test_the_signature_is_found_where_it_is_plain(module: dspy.Module, inputs: list[str], outputs: list[str]):
    assert fields(as_program(module)) == (inputs, outputs)


def test_a_program_with_a_forward_of_its_own_is_run_by_it():
    def choose_demos(program: ReAct, **inputs: Any) -> dspy.Prediction:  # as dspy.KNNFewShot sets it
        demo = dspy.Example(question="Tea?", answer="4").with_inputs("question")
        with_demos = ReAct("question -> answer", tools=[])
        with_demos.step.demos = [demo]
        return with_demos(**inputs)

    program = ReAct("question -> answer", tools=[])
    program.forward = types.MethodType(choose_demos, program)
    lm = ScriptedLM(finish(answer="5"))
    with dspy.context(lm=lm):
        *_, answer, _ = as_program(program).steps(question="Milk?")
    assert isinstance(answer, Answer)
    assert "Tea?" in lm.requests[0].text


def test_the_forward_that_dspy_leaves_on_a_program_is_its_own():
    program = ReAct("question -> answer", tools=[])
    program.forward = program.forward  # dspy.GEPA does so after each run with traces
    assert as_program(program) is program


def test_a_pipeline_says_its_signature():
    with pytest.raises(
        ProgramError,
        match=r"TwoSteps has 2 predictors and no signature .* Set self.signature = dspy.Signature\(\"question -> answ",
    ):
        as_program(TwoSteps())
    assert fields(as_program(TwoSteps(), "question -> answer")) == (["question"], ["answer"])
    module = TwoSteps()
    module.signature = dspy.Signature("question -> answer")
    assert fields(as_program(module)) == (["question"], ["answer"])


@pytest.mark.parametrize(
    ("signature", "message"),
    [
        ("question, mood -> answer", "TwoSteps.forward doesn't accept 'mood'"),
        ("-> answer", "TwoSteps.forward requires 'question'"),
        ("question", "can't be parsed"),
        (3, "is not a dspy.Signature"),
    ],
)
def test_a_signature_that_does_not_fit_is_refused_before_the_first_request(signature: Any, message: str):
    with pytest.raises(ProgramError, match=message):
        as_program(TwoSteps(), signature)


def test_the_answer_is_the_first_text_or_the_one_that_is_named():
    module = dspy.Predict("question -> n: int, title, body")
    assert as_program(module).answer_field == "title"
    assert as_program(module, answer_field="body").answer_field == "body"
    assert as_program(dspy.Predict("question -> n: int")).answer_field is None
    with pytest.raises(ProgramError, match=r"answer_field is 'text'; the outputs of .* are: n, title, body"):
        as_program(module, answer_field="text")


def test_a_program_with_steps_stays_what_it_is():
    program = ReAct("question -> answer", tools=[])
    assert as_program(program) is program
    assert as_program(lambda: program) is program
    with pytest.raises(ProgramError, match="its own steps and signature"):
        as_program(program, "question -> answer")


def test_a_function_may_build_the_program():
    program = as_program(TwoSteps, "question -> answer")
    assert isinstance(program, ModuleProgram)
    assert isinstance(program.module, TwoSteps)
    assert ResponsesAdapter(TwoSteps, signature="question -> answer").program.answer_field == "answer"


@pytest.mark.parametrize("given", [3, "question -> answer", lambda: 3, lambda: TwoSteps.forward, None])
def test_what_is_no_program_is_refused(given: Any):
    with pytest.raises(ProgramError):
        as_program(given)


class AsyncOnly(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.respond = dspy.Predict("question -> answer")

    async def aforward(self, question: str) -> dspy.Prediction:
        return dspy.Prediction(answer=f"about {question}")


def test_an_asynchronous_module_is_told_what_to_do():
    with pytest.raises(ProgramError, match=r"AsyncOnly has only aforward.*dspy\.syncify"):
        as_program(AsyncOnly())
    program = as_program(dspy.syncify(AsyncOnly()))
    with ScriptedLM():
        steps = list(program.steps(question="tea"))
    assert next(step.prediction.answer for step in steps if isinstance(step, Answer)) == "about tea"


def test_a_module_without_forward_is_refused():
    with pytest.raises(ProgramError, match="no forward"):
        as_program(dspy.Module())


def test_citing_fields_are_those_of_the_signature():
    from oneturn import Citation

    signature = dspy.Signature({"question": (str, dspy.InputField()), "sources": (list[Citation], dspy.OutputField())})
    assert as_program(dspy.Predict(signature)).citing_fields == ("sources",)
    assert as_program(dspy.Predict("question -> answer, ids: list[str]")).citing_fields == ()
