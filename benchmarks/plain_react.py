"""The baseline: ``dspy.ReAct`` with the same signature, tools and LM."""

from collections.abc import Callable, Sequence
from typing import Any

import dspy
from dspy.teleprompt import BootstrapFewShot

from data.support import CORPUS
from modules.support_desk import support_desk
from oneturn import ReAct
from oneturn.config import AgentConfig
from oneturn.programs.react import Demonstration
from oneturn.retrieval import build_retriever, read_markdown
from oneturn.tools import render_result

_THOUGHTS = {
    "search_handbook": "I look this up in the handbook.",
    "lookup_order": "I look the order up.",
    "calculate": "I compute it.",
    "finish": "I have what the answer needs.",
}


def plain_react(config: AgentConfig) -> dspy.ReAct:
    """Build an unmodified ``dspy.ReAct`` with the support desk's signature and tools."""
    retriever = build_retriever(config, documents=lambda: read_markdown(CORPUS))
    return as_plain_react(support_desk(retriever, max_iters=config.max_iters), config.max_iters)


def as_plain_react(program: ReAct, max_iters: int) -> dspy.ReAct:
    """Build a ``dspy.ReAct`` with the signature and tools of ``program``.

    It gets one iteration fewer, because it makes one more LM call at the end to extract the answer.
    """
    tools = [_with_text_result(tool) for tool in program.tools.values()]
    return dspy.ReAct(program.signature, tools=tools, max_iters=max_iters - 1)


def _with_text_result(tool: dspy.Tool) -> dspy.Tool:
    """Render the tool's result as ``oneturn.ReAct`` does: ``dspy.ReAct`` can't put documents into a prompt."""
    return dspy.Tool(lambda **args: render_result(tool(**args)), tool.name, tool.desc, tool.args, tool.arg_types)


def compiled_plain_react(
    student: dspy.ReAct, examples: Sequence[dspy.Example], metric: Any, solve: Callable[[dspy.Example], Demonstration]
) -> dspy.Module:
    """Compile ``student`` as oneturn's are: the examples, worked out with the tools, become demos in its own format."""
    optimizer = BootstrapFewShot(metric=metric, max_bootstrapped_demos=len(examples), max_labeled_demos=0)
    return optimizer.compile(student, teacher=_ScriptedPlainReact(student, examples, solve), trainset=list(examples))


def demo_examples(program: dspy.Module, trainset: Sequence[dspy.Example]) -> list[dspy.Example]:
    """Return the training examples that a compiled ``oneturn.ReAct`` shows as demos, in order."""
    by_question = {example.question: example for example in trainset}
    return [by_question[demo["question"]] for demo in program.step.demos]


class _ScriptedPlainReact(dspy.ReAct):
    """A teacher that follows the solutions with the real tools, as ``oneturn.programs.react.ScriptedTeacher`` does."""

    def __init__(
        self, student: dspy.ReAct, examples: Sequence[dspy.Example], solve: Callable[[dspy.Example], Demonstration]
    ):
        tools = [tool for name, tool in student.tools.items() if name != "finish"]
        super().__init__(student.signature, tools=tools, max_iters=student.max_iters)
        self.solutions = {example.question: solve(example) for example in examples}

    def forward(self, **inputs: Any) -> dspy.Prediction:
        solution = self.solutions[inputs["question"]]
        trajectory: dict[str, Any] = {}
        for index, (name, args) in enumerate([*solution.calls, ("finish", {})]):
            self._record(self.react, inputs, trajectory, **_step(name, args))
            trajectory |= {f"thought_{index}": _THOUGHTS[name], f"tool_name_{index}": name, f"tool_args_{index}": args}
            trajectory[f"observation_{index}"] = self._observe(name, args)
        extract = self.extract.predict
        self._record(extract, inputs, trajectory, reasoning="The results say it.", **solution.outputs)
        return dspy.Prediction(trajectory=trajectory, **solution.outputs)

    def _observe(self, name: str, args: Any) -> Any:
        try:
            return self.tools[name](**args)
        except ValueError as error:
            return f"Execution error in {name}: {error}"

    def _record(
        self, predictor: dspy.Predict, inputs: dict[str, Any], trajectory: dict[str, Any], **outputs: Any
    ) -> None:
        if dspy.settings.trace is not None:
            arguments = {**inputs, "trajectory": self._format_trajectory(trajectory)}
            dspy.settings.trace.append((predictor, arguments, dspy.Prediction(**outputs)))


def _step(name: str, args: Any) -> dict[str, Any]:
    return {"next_thought": _THOUGHTS[name], "next_tool_name": name, "next_tool_args": dict(args)}
