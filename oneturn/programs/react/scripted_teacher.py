"""A teacher that runs scripted demonstrations with the real tools, so that their runs can become demos."""

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
    """The script for a labelled example: the calls to make, as ``(tool, args)``, and the outputs of ``finish``."""

    outputs: Mapping[str, Any]
    calls: Sequence[tuple[str, Mapping[str, Any]]] = ()
    thoughts: Sequence[str] = field(default=())


class ScriptedTeacher(dspy.Module):
    """Replaces a ``ReAct`` as an optimizer's ``teacher``: it runs scripted demonstrations instead of calling an LM.

    The real tools run, so a demo shows exactly the results that the program gets. A demonstration that cites a source
    which its tools didn't return yields an empty ``Prediction``, which no metric accepts, so it never becomes a demo.

    Args:
        student: the program to compile.
        examples: labelled examples, with inputs marked.
        solve: returns the demonstration for an example.
    """

    def __init__(
        self, student: ReAct, examples: Sequence[dspy.Example], solve: Callable[[dspy.Example], Demonstration]
    ):
        super().__init__()
        self.step = student.step.deepcopy()
        self.tools = student.tools
        self.schema = student.steps_schema
        self.demonstrations = {_key(example.inputs()): solve(example) for example in examples}

    def forward(self, **inputs: Any) -> dspy.Prediction:
        """Run the demonstration for these inputs.

        Raises:
            ProgramError: no example has these inputs.
        """
        demonstration = self.demonstrations.get(_key(inputs))
        if demonstration is None:
            raise ProgramError(f"No example has the inputs {inputs}. Add one to the teacher's examples.")
        thoughts = iter(demonstration.thoughts)
        trajectory: list[Turn] = []
        sources: list[str] = []
        for name, args in demonstration.calls:
            result = run_tool(self.tools, ToolCall("scripted", name, args))
            call = ToolCallArgs(name=name, args=dict(args))
            turn = Turn(thought=next(thoughts, None), tool_call=call, observation=result.output)
            trajectory.append(turn.with_sources(result.documents))
            sources += [str(document.id) for document in result.documents]
        if self.schema.ungrounded_value(FINISH, demonstration.outputs, SeenValues(sources=tuple(sources))):
            return dspy.Prediction()
        finish = ToolCallArgs(name=FINISH, args=dict(demonstration.outputs))
        self._record(inputs, trajectory, next(thoughts, None), finish)
        return dspy.Prediction(**demonstration.outputs, trajectory=trajectory)

    def _record(self, inputs: dict[str, Any], trajectory: list[Turn], thought: str | None, call: ToolCallArgs) -> None:
        if dspy.settings.trace is None:
            return
        outputs = {"thought": thought or ""} if "thought" in self.step.signature.output_fields else {}
        entry = dspy.Prediction(**outputs, tool_call=call.model_dump(mode="json"))
        turns = [turn.model_dump(mode="json") for turn in trajectory]
        dspy.settings.trace.append((self.step, {**inputs, "trajectory": turns}, entry))


def _key(inputs: Any) -> str:
    return repr(sorted(dict(inputs).items()))
