"""``agent_tool``: an agent in this process as a tool of another agent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import dspy
from mlflow.entities import Document

from oneturn.core.background import run_in_thread
from oneturn.core.run_context import report
from oneturn.core.steps import Answer, AnswerDelta, ApprovalWanted, Step, Thought, ToolCall, ToolProgress, ToolResult
from oneturn.core.usage import CallTracker, Usage
from oneturn.errors import ToolError
from oneturn.programs import Program, as_program
from oneturn.responses import ResponsesAdapter
from oneturn.responses.event_writer import Event, EventWriter
from oneturn.tools.registry import SourcedText
from oneturn.toolsets._nested_run import (
    answer_text,
    build_tool,
    describe_call,
    describe_progress,
    needs_approval,
    program_inputs,
    run_nested,
    signature_arguments,
    validate_tool,
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
    """Return an agent as a tool of another: its inputs are the tool's arguments, its answer is the tool's result.

    The outer LM reads the answer's text, or all outputs as JSON if there are outputs other than text and citations. It
    can cite the sources that the agent cites. The agent's tool calls are reported as the tool's progress, its LM calls
    count towards the outer run's usage, and its spans are children of the tool's span. Each failure is one short line
    for the outer LM.

    Args:
        agent: a :class:`oneturn.ReAct`, any ``dspy.Module`` or program (see :func:`oneturn.programs.as_program`), or a
            ``ResponsesAdapter``, whose deadline is ignored here. Its predictors must have an LM, or ``dspy.configure``
            must have set one.
        name: the tool's name.
        description: what the agent does and when to call it, for the outer LM; ``None`` for the signature's
            instructions.
        timeout: seconds until the agent is stopped and the call fails; ``None`` for the outer run's limit only.
        on_step: called with each step of the agent, in the thread of the tool call.

    Raises:
        ProgramError: ``agent`` isn't a program, an LM can't write one of its inputs, or ``name`` or ``timeout`` is
            invalid.
    """
    validate_tool(name, timeout)
    program = as_program(agent.program if isinstance(agent, ResponsesAdapter) else agent)
    signature = program.signature

    def call(arguments: dict[str, Any]) -> SourcedText:
        inputs = program_inputs(signature, arguments)
        return run_nested(name, timeout, lambda tracker: _run(program, inputs, tracker, on_step))

    return build_tool(call, name, description or signature.instructions, signature_arguments(signature))


def _run(program: Program, inputs: dict[str, Any], tracker: CallTracker, on_step: OnStep | None) -> SourcedText:
    seen: dict[str, Document] = {}
    answers: list[dspy.Prediction] = []
    waiting: list[str] = []

    writer = EventWriter()

    def handle(step: Step) -> None:
        if on_step is not None:
            on_step(step)
        for item in _items(writer, program, step):
            report(describe_call(step.name, step.args) if isinstance(step, ToolCall) else "", item=item)
        if isinstance(step, ToolProgress) and (step.message or step.item):
            report(describe_progress(step.name, step.message) if step.message else "", step.fraction, step.item)
        elif isinstance(step, ToolResult):
            seen.update({str(document.id): document for document in step.documents})
        elif isinstance(step, Answer):
            answers.append(step.prediction)
        elif isinstance(step, ApprovalWanted):
            waiting.append(step.waiting.name)
        elif isinstance(step, Usage) and not tracker.usage_data:  # a program that calls its LM without DSPy
            tracker.add_usage(type(program).__name__, step.to_dspy())

    def run(emit: Callable[[Step], None]) -> None:
        for step in _steps(program, inputs):
            if on_step is not None or not isinstance(step, AnswerDelta):
                emit(step)

    run_in_thread(run, handle)
    if waiting:
        raise needs_approval(waiting[0])
    if not answers:
        raise ToolError("the agent gave no answer; do without it, or rephrase the request")
    return _to_text(program, answers[-1], seen)


def _items(writer: EventWriter, program: Program, step: Step) -> list[Mapping[str, Any]]:
    """Return the output items that the step completes, as in the agent's own stream."""
    events: Iterable[Event] = ()
    if isinstance(step, Thought):
        events = writer.thought(step.text)
    elif isinstance(step, ToolCall):
        events = writer.tool_call(step)
    elif isinstance(step, ToolResult):
        events = writer.tool_result(step)
    elif isinstance(step, Answer) and program.answer_field is not None:
        events = writer.answer(str(step.prediction.get(program.answer_field) or ""), [])
    return [event["item"] for event in events if event["type"] == "response.output_item.done"]


def _steps(program: Program, inputs: dict[str, Any]) -> Iterator[Step]:
    with ExitStack() as stack:
        steps = program.steps(**inputs)
        if hasattr(steps, "close"):
            stack.callback(steps.close)
        yield from steps


def _to_text(program: Program, prediction: dspy.Prediction, seen: dict[str, Document]) -> SourcedText:
    cited = dict.fromkeys(str(id) for field in program.citing_fields for id in prediction.get(field) or [])
    outputs = {
        name: prediction.get(name) for name in program.signature.output_fields if name not in program.citing_fields
    }
    return answer_text(outputs, program.answer_field, [seen[id] for id in cited if id in seen])
