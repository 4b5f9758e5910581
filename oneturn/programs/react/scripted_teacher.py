"""A teacher that runs scripted demonstrations with the real tools, so that their runs can become demos."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import dspy

from oneturn.core.serialization import normalise_arguments
from oneturn.core.steps import ToolCall, ToolResult, WaitingCall
from oneturn.errors import ApprovalRequired, ConfigError, ProgramError
from oneturn.programs.react.grounding import SeenValues, citing_fields
from oneturn.programs.react.module import ReAct, ask_for_approval
from oneturn.programs.react.trajectory import ToolCallArgs, Turn
from oneturn.tools.arguments import needs_approval
from oneturn.tools.registry import FINISH, failed, render_result, run_tool, succeeded


@dataclass(frozen=True)
class Demonstration:
    """The script for a labelled example.

    Attributes:
        outputs: the outputs of ``finish``.
        calls: the calls to make, as ``(tool, args)``.
        thoughts: the thoughts, in the order of the calls; the last one is that of ``finish``.
        results: recorded results of calls, by their position in ``calls``: what the tool returned. Such a call isn't
            made. A call that needs a person's approval should have one.
    """

    outputs: Mapping[str, Any]
    calls: Sequence[tuple[str, Mapping[str, Any]]] = ()
    thoughts: Sequence[str] = field(default=())
    results: Mapping[int, Any] = field(default_factory=dict)


class ScriptedTeacher(dspy.Module):
    """Replaces a ``ReAct`` as an optimizer's ``teacher``: it runs scripted demonstrations instead of calling an LM.

    The real tools run, so a demo shows exactly the results that the program gets. A call that needs a person's approval
    is never run by itself: the demonstration has its recorded result, or the compile an approval policy. A
    demonstration that cites a source which its tools didn't return yields an empty ``Prediction``, which no metric
    accepts, so it never becomes a demo.

    Args:
        student: the program to compile.
        examples: labelled examples, with inputs marked.
        solve: returns the demonstration for an example.
        documents: the number of documents that a demo shows of each result, at least 1: those that its outputs cite or
            its later calls name, however many, then the first others; ``None`` to show all. A demo with fewer is a
            shorter prompt. A result that was cut, or isn't citable documents alone, is shown whole.

    Raises:
        ConfigError: ``documents`` is below 1.
    """

    def __init__(
        self,
        student: ReAct,
        examples: Sequence[dspy.Example],
        solve: Callable[[dspy.Example], Demonstration],
        documents: int | None = None,
    ):
        super().__init__()
        if documents is not None and documents < 1:
            raise ConfigError(f"documents is {documents}; it must be at least 1, or None to show all.")
        self.step = student.step.deepcopy()
        self.tools = student.tools
        self.documents = documents
        self.citing = citing_fields(student.signature)
        self.schema = student.steps_schema
        self.demonstrations = {_key(example.inputs()): solve(example) for example in examples}

    def forward(self, **inputs: Any) -> dspy.Prediction:
        """Run the demonstration for these inputs.

        Raises:
            ApprovalRequired: a call needs a person's approval, and has no recorded result and no policy to approve it.
            ProgramError: no example has these inputs.
        """
        demonstration = self.demonstrations.get(_key(inputs))
        if demonstration is None:
            raise ProgramError(f"No example has the inputs {inputs}. Add one to the teacher's examples.")
        thoughts = iter(demonstration.thoughts)
        trajectory: list[Turn] = []
        sources: list[str] = []
        for position, (name, args) in enumerate(demonstration.calls):
            scripted = ToolCall("scripted", name, args)
            if position in demonstration.results:
                result = succeeded(scripted, demonstration.results[position])
            else:
                result = self._run_tool(scripted, trajectory)
            call = ToolCallArgs(name=name, args=dict(args))
            observation = self._shown(result, demonstration, position)
            turn = Turn(thought=next(thoughts, None), tool_call=call, observation=observation)
            trajectory.append(turn.with_sources(result.documents))
            sources += [str(document.id) for document in result.documents]
        if self.schema.ungrounded_value(FINISH, demonstration.outputs, SeenValues(sources=tuple(sources))):
            return dspy.Prediction()
        finish = ToolCallArgs(name=FINISH, args=self.schema.in_order(demonstration.outputs))
        self._record(inputs, trajectory, next(thoughts, None), finish)
        return dspy.Prediction(trajectory=trajectory, **demonstration.outputs)

    def _shown(self, result: ToolResult, demonstration: Demonstration, position: int) -> str:
        """Return the text of a result, with fewer documents if it consists of documents alone."""
        found = list(result.documents)
        if self.documents is None or result.output != render_result(found):
            return result.output
        needed = [str(source) for name in self.citing for source in demonstration.outputs.get(name) or ()]
        named = [str(value) for _, args in demonstration.calls[position + 1 :] for value in args.values()]
        places = [
            place
            for place, document in enumerate(found)
            if str(document.id) in needed or any(value and value in render_result(document) for value in named)
        ]
        others = [place for place in range(len(found)) if place not in places]
        room = max(self.documents - len(places), 0)
        return render_result([found[place] for place in sorted(places + others[:room])])

    def _run_tool(self, call: ToolCall, trajectory: list[Turn]) -> ToolResult:
        if needs_approval(self.tools.get(call.name), call.args):
            call = replace(call, args=normalise_arguments(call.args))
            approved = ask_for_approval(WaitingCall(call.name, call.args))
            if approved is None:
                raise ApprovalRequired(call.name, call.args, trajectory)
            if not approved:
                return failed(call, "a person refused this call")
        return run_tool(self.tools, call)

    def _record(self, inputs: dict[str, Any], trajectory: list[Turn], thought: str | None, call: ToolCallArgs) -> None:
        if dspy.settings.trace is None:
            return
        outputs = {"thought": thought or ""} if "thought" in self.step.signature.output_fields else {}
        entry = dspy.Prediction(**outputs, tool_call=call.model_dump(mode="json"))
        turns = [turn.model_dump(mode="json") for turn in trajectory]
        dspy.settings.trace.append((self.step, {**inputs, "trajectory": turns}, entry))


def _key(inputs: Any) -> str:
    return repr(sorted(dict(inputs).items()))
