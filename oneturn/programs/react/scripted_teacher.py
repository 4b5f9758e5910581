"""A teacher that works labelled examples out with the real tools, so that their runs can become demos."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dspy

from oneturn.core.steps import ToolCall
from oneturn.errors import ProgramError
from oneturn.programs.react.grounding import SeenValues
from oneturn.programs.react.module import ReAct
from oneturn.programs.react.trajectory import ToolCallArgs, Turn
from oneturn.tools.registry import FINISH, run_tool


@dataclass(frozen=True)
class Demonstration:
    """How a labelled example is worked: the calls to make, as ``(tool, args)``, and the outputs to finish with."""

    outputs: Mapping[str, Any]
    calls: Sequence[tuple[str, Mapping[str, Any]]] = ()
    thoughts: Sequence[str] = field(default=())


class ScriptedTeacher(dspy.Module):
    """Stands in for a ``ReAct`` as an optimizer's ``teacher``: it doesn't ask an LM, it knows the solutions.

    The tools run for real, so a demo shows exactly what the program will see. A solution that cites what its tools
    didn't give comes back as an empty ``Prediction``, which no metric accepts: it never becomes a demo.

    Args:
        student: the program to be compiled.
        examples: labelled examples, with inputs marked.
        solve: gives an example's solution.
    """

    def __init__(
        self, student: ReAct, examples: Sequence[dspy.Example], solve: Callable[[dspy.Example], Demonstration]
    ):
        super().__init__()
        self.step = student.step.deepcopy()
        self.tools = student.tools
        self.schema = student.steps_schema
        self.solutions = {_key(example.inputs()): solve(example) for example in examples}

    def forward(self, **inputs: Any) -> dspy.Prediction:
        """Work the example with these inputs.

        Raises:
            ProgramError: it isn't one of the examples.
        """
        solution = self.solutions.get(_key(inputs))
        if solution is None:
            raise ProgramError(f"There is no worked solution for {inputs}.")
        thoughts = iter(solution.thoughts)
        trajectory: list[Turn] = []
        sources: list[str] = []
        for name, args in solution.calls:
            result = run_tool(self.tools, ToolCall("scripted", name, args))
            call = ToolCallArgs(name=name, args=dict(args))
            turn = Turn(thought=next(thoughts, None), tool_call=call, observation=result.output)
            trajectory.append(turn.with_sources(result.documents))
            sources += [str(document.id) for document in result.documents]
        if self.schema.ungrounded_value(FINISH, solution.outputs, SeenValues(sources=tuple(sources))):
            return dspy.Prediction()
        finish = ToolCallArgs(name=FINISH, args=dict(solution.outputs))
        self._record(inputs, trajectory, next(thoughts, None), finish)
        return dspy.Prediction(**solution.outputs, trajectory=trajectory)

    def _record(self, inputs: dict[str, Any], trajectory: list[Turn], thought: str | None, call: ToolCallArgs) -> None:
        if dspy.settings.trace is None:
            return
        outputs = {"thought": thought or ""} if "thought" in self.step.signature.output_fields else {}
        entry = dspy.Prediction(**outputs, tool_call=call.model_dump(mode="json"))
        turns = [turn.model_dump(mode="json") for turn in trajectory]
        dspy.settings.trace.append((self.step, {**inputs, "trajectory": turns}, entry))


def _key(inputs: Any) -> str:
    return repr(sorted(dict(inputs).items()))
