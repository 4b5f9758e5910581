"""The DSPy adapter that formats a run as a chat and parses the LM's reply as a step.

Each turn is one assistant message (the step's JSON) and one user message (the result), so that a prompt grows only at
its end and the LM's prompt cache stays valid. Demos are complete runs in the same format; a labelled example without a
run shows its inputs and its ``finish`` call. The system message lists the tools, rendered from the current program: an
optimizer rewrites the signature's instructions, never the list of tools.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, get_args

import dspy
from dspy.utils.exceptions import AdapterParseError

from oneturn.core._dspy import ResponseFormatAdapter, format_field_value, to_content_parts
from oneturn.core.fields import field_description
from oneturn.core.serialization import jsonable, replace_surrogates
from oneturn.programs.react.grounding import SeenValues
from oneturn.programs.react.reply_parser import parse_reply
from oneturn.programs.react.schema import StepSchema
from oneturn.programs.react.trajectory import ToolCallArgs, Turn
from oneturn.tools.registry import FINISH

Message = dict[str, Any]

_PROTOCOL = """\
You work in steps. Every step is one JSON object: {shape}
It calls exactly one tool;{together} you then read its result and take the next step. Take arguments from the question \
or from results, never invent them. As soon as the results hold the answer, or can't, call finish. The tools:
{tools}"""
_LEFT_OUT = "(The steps in between are left out.)"
_TOGETHER = " further calls that don't need its result go into parallel_calls, and all are made at the same time;"


class StepAdapter(ResponseFormatAdapter):
    """Formats and parses the steps of one :class:`oneturn.ReAct`.

    Args:
        steps: the schema of a step.
        allowed: the names that the step may call; the reply is constrained to them if the LM supports JSON schemas.
            The prompt always lists every tool.
        seen_values: the values that the run has seen, to which grounded arguments are restricted.
    """

    def __init__(self, steps: StepSchema, allowed: Iterable[str], seen_values: SeenValues = SeenValues()):
        super().__init__(use_native_function_calling=False)
        self.steps = steps
        self.allowed = frozenset(allowed)
        self.seen_values = seen_values

    def response_format(self, lm: dspy.BaseLM) -> dict[str, Any] | None:
        """Return the schema of the allowed steps, or JSON mode if ``lm`` doesn't support schemas."""
        if "response_format" not in lm.supported_params:
            return None
        if not lm.supports_response_schema:
            return {"type": "json_object"}
        schema = self.steps.json_schema(self.allowed, self.seen_values)
        return {"type": "json_schema", "json_schema": {"name": "step", "schema": schema, "strict": True}}

    def format(
        self, signature: type[dspy.Signature], demos: list[dict[str, Any]], inputs: dict[str, Any]
    ) -> list[Message]:
        """Return the complete chat: the system message, the demos, then this run so far."""
        messages = [{"role": "system", "content": self.format_system_message(signature)}]
        for demo in demos:
            messages += self._demo_messages(signature, demo)
        return messages + self._run_messages(signature, inputs)

    def format_system_message(self, signature: type[dspy.Signature]) -> str:
        """Return the instructions, the described inputs, then the protocol with the tools."""
        parts = [signature.instructions.strip(), _describe_inputs(signature), self.protocol()]
        return "\n\n".join(part for part in parts if part)

    def protocol(self) -> str:
        """Return the format of a step, and the tools."""
        thought = '"thought": "<why, in a few words>", ' if self.steps.thoughts else ""
        more = ', "parallel_calls": []' if self.steps.parallel else ""
        shape = f'{{{thought}"tool_call": {{"name": "<tool>", "args": {{…}}}}{more}}}'
        together = _TOGETHER if self.steps.parallel else ""
        return _PROTOCOL.format(shape=shape, together=together, tools=self.steps.description())

    def parse(self, signature: type[dspy.Signature], completion: str) -> dict[str, Any]:
        """Parse the LM's reply as a step.

        Raises:
            AdapterParseError: the reply isn't a JSON object that calls a tool.
        """
        try:
            reply = parse_reply(completion)
        except ValueError as error:
            raise AdapterParseError(
                adapter_name=type(self).__name__,
                signature=signature,
                lm_response=completion,
                message="The reply is not one JSON object with a tool_call.",
            ) from error
        call, *more = [ToolCallArgs(name=each.name, args=each.args) for each in (reply.call, *reply.parallel)]
        step: dict[str, Any] = {"tool_call": call}
        if self.steps.parallel:
            step["parallel_calls"] = more
        if self.steps.thoughts:
            step["thought"] = reply.thought
        return step

    def _demo_messages(self, signature: type[dspy.Signature], demo: Mapping[str, Any]) -> list[Message]:
        if demo.get("tool_call") is not None:
            last_message = _assistant(demo.get("thought"), demo["tool_call"], self.steps.thoughts)
            return [*self._run_messages(signature, demo), last_message]
        labels = {name: jsonable(demo[name]) for name in self.steps.outputs if name in demo}
        if not labels:
            return []
        messages = self._run_messages(signature, {name: demo[name] for name in signature.input_fields if name in demo})
        if len(self.steps.names) > 1:
            messages.append({"role": "user", "content": _LEFT_OUT})
        return [*messages, _assistant("", ToolCallArgs(name=FINISH, args=labels), self.steps.thoughts)]

    def _run_messages(self, signature: type[dspy.Signature], run: Mapping[str, Any]) -> list[Message]:
        messages = self._history(signature, run)
        question = {"role": "user", "content": _inputs_text(signature, run)}
        messages.append(to_content_parts(question))
        for raw in run.get("trajectory") or []:
            turn = raw if isinstance(raw, Turn) else Turn.model_validate(raw)
            if turn.tool_call is not None:
                messages.append(_assistant(turn.thought, turn.tool_call, self.steps.thoughts))
            messages.append(_observation(turn))
        return messages

    def _history(self, signature: type[dspy.Signature], run: Mapping[str, Any]) -> list[Message]:
        """Return earlier exchanges in the format of this run: the inputs, and the ``finish`` call with the outputs."""
        messages: list[Message] = []
        for exchange in _exchanges(signature, run):
            if question := _inputs_text(signature, exchange):
                messages.append({"role": "user", "content": question})
            outputs = {key: value for key, value in exchange.items() if key not in signature.input_fields}
            if any(name in outputs for name in self.steps.outputs):  # a prediction also has a trajectory or reasoning
                outputs = {name: outputs[name] for name in self.steps.outputs if name in outputs}
            if outputs:
                finish = ToolCallArgs(name=FINISH, args=jsonable(outputs))
                messages.append(_assistant("", finish, self.steps.thoughts))
        return messages


def _observation(turn: Turn) -> Message:
    """Return a result's message: its text, then its images and files as content parts."""
    if not turn.media:
        return {"role": "user", "content": turn.observation}
    media = "\n".join(str(part.model_dump()) for part in turn.media)  # DSPy's markers
    return to_content_parts({"role": "user", "content": f"{turn.observation}\n{media}"})


def _assistant(thought: str | None, call: ToolCallArgs | Mapping[str, Any], thoughts: bool) -> Message:
    parsed = call if isinstance(call, ToolCallArgs) else ToolCallArgs.model_validate(call)
    step: dict[str, Any] = {"thought": thought or ""} if thoughts else {}
    step["tool_call"] = parsed.model_dump(mode="json")
    return {"role": "assistant", "content": json.dumps(step, ensure_ascii=False)}


def _is_history(annotation: Any) -> bool:
    return annotation is dspy.History or dspy.History in get_args(annotation)


def _exchanges(signature: type[dspy.Signature], run: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the earlier exchanges: of a ``dspy.History``, or of its JSON form in a saved demo or a dataset."""
    for name, field in signature.input_fields.items():
        if _is_history(field.annotation):
            history = run.get(name) or ()
            exchanges = history.get("messages", ()) if isinstance(history, Mapping) else history
            return list(getattr(exchanges, "messages", exchanges))
    return []


def _inputs_text(signature: type[dspy.Signature], values: Mapping[str, Any]) -> str:
    fields = {
        name: field
        for name, field in signature.input_fields.items()
        if name in values and name != "trajectory" and not _is_history(field.annotation)
    }
    return replace_surrogates(
        "\n".join(f"{name}: {format_field_value(field, values[name])}" for name, field in fields.items())
    )


def _describe_inputs(signature: type[dspy.Signature]) -> str:
    lines = []
    for name, field in signature.input_fields.items():
        description = field_description(name, field)
        if name != "trajectory" and not _is_history(field.annotation) and description:
            lines.append(f"- {name}: {description}")
    return "You are given:\n" + "\n".join(lines) if lines else ""
