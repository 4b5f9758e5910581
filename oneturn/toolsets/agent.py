"""``agent_tool``: an agent in this process as a tool of another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import dspy
from mlflow.entities import Document
from mlflow.types.responses import ResponsesAgentStreamEvent

from oneturn.core.background import run_in_thread
from oneturn.core.run_context import report
from oneturn.core.steps import Answer, AnswerDelta, Step, Thought, ToolCall, ToolProgress, ToolResult, Usage
from oneturn.core.usage import Spend
from oneturn.errors import ToolError
from oneturn.programs import Program, as_program
from oneturn.responses import ResponsesAdapter
from oneturn.responses.event_writer import EventWriter
from oneturn.tools.documents import SourcedText
from oneturn.toolsets._nested_run import (
    answer_text,
    check_declared,
    declared,
    describe_call,
    describe_work,
    inputs_for,
    nested,
    of_signature,
)

OnStep = Callable[[Step], object]


def agent_tool(
    agent: Program | dspy.Module | ResponsesAdapter | Callable[[], Program | dspy.Module],
    name: str,
    description: str | None = None,
    *,
    timeout: float | None = None,
    on_step: OnStep | None = None,
) -> dspy.Tool:
    """Make an agent a tool of another: its inputs are the tool's arguments, its answer is the tool's result.

    The LM that calls it reads the answer's text, or all outputs as JSON if there are others than text and citations.
    What the agent cites can be cited again. The tools that it calls are told as the tool's progress; its LM calls
    count as the outer run's, and its spans stand below the tool's. However it fails, the outer LM reads one short line.

    Args:
        agent: a :class:`oneturn.ReAct`, any ``dspy.Module`` or program (see :func:`oneturn.as_program`), or a
            ``ResponsesAdapter``, whose deadline isn't heeded here. Its predictors must have their LM, or
            ``dspy.configure`` must have given one.
        name: what the outer LM calls it by.
        description: what it does and when to ask it, for the outer LM; if not said, the signature's instructions.
        timeout: seconds that it may take; then it is stopped and has failed. ``None`` for no limit but the outer run's.
        on_step: told of each step that the agent takes, in the thread of the tool call.

    Raises:
        ProgramError: ``agent`` is no program, has an input that no LM can write, or name or timeout can't be used.
    """
    check_declared(name, timeout)
    program = as_program(agent.program if isinstance(agent, ResponsesAdapter) else agent)
    signature = program.signature

    def ask(given: dict[str, Any]) -> SourcedText:
        inputs = inputs_for(signature, given)
        return nested(name, timeout, lambda spend: _answered(program, inputs, spend, on_step))

    return declared(ask, name, description or signature.instructions, of_signature(signature))


def _answered(program: Program, inputs: dict[str, Any], spend: Spend, on_step: OnStep | None) -> SourcedText:
    seen: dict[str, Document] = {}
    answers: list[dspy.Prediction] = []

    writer = EventWriter()

    def hear(step: Step) -> None:
        if on_step is not None:
            on_step(step)
        for item in _items(writer, program, step):
            report(describe_call(step.name, step.args) if isinstance(step, ToolCall) else "", item=item)
        if isinstance(step, ToolProgress) and (step.message or step.item):
            report(describe_work(step.name, step.message) if step.message else "", step.fraction, step.item)
        elif isinstance(step, ToolResult):
            seen.update({str(document.id): document for document in step.documents})
        elif isinstance(step, Answer):
            answers.append(step.prediction)
        elif (
            isinstance(step, Usage) and not spend.lm_calls
        ):  # a program whose LM calls aren't DSPy's tells them only here
            for model, tokens in step.tokens.items():
                spend.add_usage(model, dict(tokens))

    def run(tell: Callable[[Step], None]) -> None:
        for step in _steps(program, inputs):
            if on_step is not None or not isinstance(step, AnswerDelta):
                tell(step)

    run_in_thread(run, hear)
    if not answers:
        raise ToolError("the agent gave no answer; do without it, or ask it otherwise")
    return _told(program, answers[-1], seen)


def _items(writer: EventWriter, program: Program, step: Step) -> list[Mapping[str, Any]]:
    """What the agent has finished with a step, as its own stream would have it."""
    events: Iterable[ResponsesAgentStreamEvent] = ()
    if isinstance(step, Thought):
        events = writer.thought(step.text)
    elif isinstance(step, ToolCall):
        events = writer.tool_call(step)
    elif isinstance(step, ToolResult):
        events = writer.tool_result(step)
    elif isinstance(step, Answer) and program.answer_field is not None:
        events = writer.answer(str(step.prediction.get(program.answer_field) or ""), [])
    told = [event.model_dump() for event in events if event.type == "response.output_item.done"]
    return [event["item"] for event in told]


def _steps(program: Program, inputs: dict[str, Any]) -> Iterator[Step]:
    with ExitStack() as stack:
        steps = program.steps(**inputs)
        if hasattr(steps, "close"):
            stack.callback(steps.close)
        yield from steps


def _told(program: Program, prediction: dspy.Prediction, seen: dict[str, Document]) -> SourcedText:
    cited = dict.fromkeys(str(id) for field in program.citing_fields for id in prediction.get(field) or [])
    outputs = {
        name: prediction.get(name) for name in program.signature.output_fields if name not in program.citing_fields
    }
    return answer_text(outputs, program.answer_field, [seen[id] for id in cited if id in seen])
