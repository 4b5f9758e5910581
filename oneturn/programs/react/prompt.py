"""The DSPy adapter that formats a run as a chat and parses the LM's reply as a step.

Each turn is one assistant message (the step's JSON) and one user message (the result), so that a prompt grows only at
its end and the LM's prompt cache stays valid. Demos are complete runs in the same format; a labelled example without a
run shows its inputs and its ``finish`` call. The system message lists the tools, rendered from the current program: an
optimizer rewrites the signature's instructions, never the list of tools.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import dspy
from dspy.utils.exceptions import AdapterParseError

from oneturn.core._dspy import RequestAdapter, format_field_value, to_content_parts
from oneturn.core.fields import field_description
from oneturn.core.serialization import jsonable, replace_surrogates
from oneturn.lm.capabilities import ToolCalling
from oneturn.lm.free_text import ANSWER_LINE, BEFORE_JSON, FreeText, with_free_text
from oneturn.programs.react.grounding import SeenValues
from oneturn.programs.react.history import (
    chat_entries,
    exchanges,
    is_chat_message,
    is_history,
    past_outputs,
    tool_turns,
)
from oneturn.programs.react.protocol import REMINDER, protocol
from oneturn.programs.react.reply_parser import parse_object, parse_reply, split_reply
from oneturn.programs.react.schema import StepSchema
from oneturn.programs.react.trajectory import ToolCallArgs, Turn
from oneturn.tools.registry import FINISH

Message = dict[str, Any]

EMPTY_REPLY = "(empty)"
_CALL_FIRST = f"Don't call {FINISH} yet. Call {{tools}} as soon as you know its arguments."
_LEFT_OUT = "(The steps in between are left out.)"


class StepAdapter(RequestAdapter):
    """Formats and parses the steps of one :class:`oneturn.ReAct` for an LM that is held to a schema by a local grammar.

    Args:
        steps: the schema of a step.
        allowed: the names that the step may call, to which the grammar restricts the reply. The prompt always lists
            every tool.
        seen_values: the values that the run has seen, to which the grammar restricts grounded arguments.
        free_thought: whether a run's first step has a thought in free text before its JSON, and no other step has one.
        first: whether this is the first step.

    Attributes:
        one_thought: whether only a run's first step has a thought.
        free_tokens: the maximum number of tokens of the step's free text; 0 for none.
        states: what the LM's API requires back of its replies, by the id of a function call; set by :meth:`format`.
        plain_answer: after how many characters of plain text the text streams as the answer; ``None`` if it isn't one.
    """

    tool_calling: ToolCalling = "schema"
    full_description = False
    plain_answer: int | None = None

    def __init__(
        self,
        steps: StepSchema,
        allowed: Iterable[str],
        seen_values: SeenValues = SeenValues(),
        free_thought: bool = False,
        first: bool = True,
    ):
        super().__init__(use_native_function_calling=False)
        self.steps = steps
        self.allowed = frozenset(allowed)
        self.seen_values = seen_values
        self.free_thought = free_thought
        self.one_thought = free_thought
        self.free_tokens = steps.free_thought if free_thought and first else 0
        self.states: dict[str, str] = {}

    def request_options(self, lm: dspy.BaseLM) -> dict[str, Any]:
        """Return the schema of the allowed steps as the response format."""
        schema, text = self.free_text_schema()
        if text is not None:
            schema = with_free_text(schema, text)
        return {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "step", "schema": schema, "strict": True},
            }
        }

    def free_text_schema(self) -> tuple[dict[str, Any], FreeText | None]:
        """Return the schema of the allowed steps, and the text before it."""
        in_json = self.steps.thoughts and not self.free_thought
        schema = self.steps.json_schema(self.allowed, self.seen_values, in_json)
        return schema, FreeText(self.free_tokens) if self.free_tokens else None

    def read(self, signature: type[dspy.Signature], reply: Mapping[str, Any]) -> dict[str, Any]:
        """Return the step in a reply, with the LM's ``reasoning`` if there is any.

        Raises:
            AdapterParseError: the reply is no step.
        """
        text, reasoning = reply.get("text") or "", reply.get("reasoning_content") or ""
        if calls := reply.get("tool_calls"):  # some servers make function calls of a step
            first, *more = [self._call_of(each["function"]) for each in calls]
            parallel = {"parallel_calls": more} if self.steps.parallel else {}
            return {"thought": "", "tool_call": first, **parallel, "reasoning": reasoning}
        if not text.strip() and reasoning:  # some servers take the step for the reasoning's end
            with contextlib.suppress(AdapterParseError):
                return self.parse(signature, reasoning)
        return {**self.parse(signature, text), "reasoning": reasoning}

    def format(
        self, signature: type[dspy.Signature], demos: list[dict[str, Any]], inputs: dict[str, Any]
    ) -> list[Message]:
        """Return the complete chat: the system message, the demos, then this run so far."""
        messages = [{"role": "system", "content": self.format_system_message(signature)}]
        for demo in demos:
            messages += [message for message in self._demo_messages(signature, demo) if message["role"] != "system"]
        messages = _with_instructions(messages, self._run_messages(signature, inputs))
        if FINISH in self.allowed:
            return messages
        return with_request(messages, _CALL_FIRST.format(tools=" or ".join(sorted(self.steps.client_tools))))

    def format_system_message(self, signature: type[dspy.Signature]) -> str:
        """Return the instructions, the described inputs, then the protocol with the tools."""
        parts = [signature.instructions.strip(), describe_inputs(signature), self.protocol()]
        return "\n\n".join(part for part in parts if part)

    def protocol(self) -> str:
        """Return the format of a step, and the tools."""
        return protocol(self.steps, self.free_thought, self.full_description)

    def reminder(self) -> str:
        """Return what follows each question; empty for nothing."""
        return REMINDER if self.free_thought else ""

    def parse(self, signature: type[dspy.Signature], completion: str, examples: bool = True) -> dict[str, Any]:
        """Parse the LM's reply as a step.

        Args:
            signature: the signature of a step.
            completion: the reply.
            examples: whether a call that is shown in prose is the step.

        Raises:
            AdapterParseError: the reply isn't a JSON object that calls a tool.
        """
        text, written = split_reply(completion) if self.free_thought else ("", completion)
        try:
            reply = parse_reply(written, self.steps.function_names, examples)
        except ValueError as error:
            if (outputs := self._outputs_in(completion)) is not None:
                return {"tool_call": outputs, **({"thought": ""} if self.steps.thoughts else {})}
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
            step["thought"] = (text or reply.before or reply.thought) if self.free_thought else reply.thought
        return step

    def is_complete(self, text: str) -> bool:
        """Return whether the step in a reply is complete, though the reply was cut."""
        try:
            step = split_reply(text)[1] if self.free_thought else text
            return parse_reply(step, self.steps.function_names).complete
        except ValueError:
            return False

    def _outputs_in(self, completion: str) -> ToolCallArgs | None:
        """Return the ``finish`` call of a reply that is an object of the outputs alone; ``None`` if it is none."""
        outputs = parse_object(completion) or {}
        required = self.steps.required_outputs
        if not outputs or not required or not required <= set(outputs) <= {*self.steps.outputs, "thought"}:
            return None
        args = {name: value for name, value in outputs.items() if name in self.steps.outputs}
        return ToolCallArgs(name=FINISH, args=args)

    def _call_of(self, function: Mapping[str, Any]) -> ToolCallArgs:
        names = self.steps.function_names
        name = names.resolve(str(function["name"]))
        return ToolCallArgs(name=name, args=names.read_arguments(name, json.loads(function["arguments"] or "{}")))

    def _demo_messages(self, signature: type[dspy.Signature], demo: Mapping[str, Any]) -> list[Message]:
        if demo.get("tool_call") is not None:
            call = _call(demo["tool_call"])
            thought = "" if self.one_thought and demo.get("trajectory") else demo.get("thought")
            return [*self._run_messages(signature, demo), *self.end_messages(thought, call)]
        labels = {name: jsonable(demo[name]) for name in self.steps.outputs if name in demo}
        if not labels:
            return []
        messages = self._run_messages(signature, {name: demo[name] for name in signature.input_fields if name in demo})
        if len(self.steps.names) > 1:
            messages.append({"role": "user", "content": _LEFT_OUT})
        return [*messages, *self.end_messages("", ToolCallArgs(name=FINISH, args=labels))]

    def _run_messages(self, signature: type[dspy.Signature], run: Mapping[str, Any]) -> list[Message]:
        messages = self._history(signature, run)
        question = {"role": "user", "content": inputs_text(signature, run) + self.reminder()}
        messages.append(to_content_parts(question))
        trajectory = run.get("trajectory") or []
        turns = [turn if isinstance(turn, Turn) else Turn.model_validate(turn) for turn in trajectory]
        return messages + self.turn_messages(turns)

    def turn_messages(self, turns: Iterable[Turn]) -> list[Message]:
        """Return each turn as the LM's step and its result."""
        messages: list[Message] = []
        for number, turn in enumerate(turns):
            if turn.tool_call is not None:
                thought = "" if self.one_thought and number else turn.thought
                messages += self.end_messages(thought, turn.tool_call)
            elif turn.reply is not None:
                messages.append({"role": "assistant", "content": turn.reply or EMPTY_REPLY})
            messages.append(observation_message(turn))
        return messages

    def end_messages(self, thought: str | None, call: ToolCallArgs) -> list[Message]:
        """Return the last step of an exchange."""
        in_json = self.steps.thoughts and not self.free_thought
        step: dict[str, Any] = {"thought": thought or ""} if in_json else {}
        step["tool_call"] = call.model_dump(mode="json")
        text = json.dumps(step, ensure_ascii=False)
        if self.free_thought and thought and (thought := ANSWER_LINE.split(thought)[0].strip()):  # see TextFirstAdapter
            text = f"{thought}\n\n{BEFORE_JSON} {text}"
        return [{"role": "assistant", "content": text}]

    def _history(self, signature: type[dspy.Signature], run: Mapping[str, Any]) -> list[Message]:
        """Return earlier exchanges in the format of this run: inputs, calls, results, ``finish`` with the outputs."""
        messages: list[Message] = []
        history = exchanges(signature, run)
        fields = {*signature.input_fields, *self.steps.outputs}
        for number, exchange in enumerate(history):
            if is_chat_message(exchange, fields):
                for entry in chat_entries(number, history):
                    messages += self.turn_messages(entry) if isinstance(entry, list) else [entry]
                continue
            if question := inputs_text(signature, exchange):
                messages.append(to_content_parts({"role": "user", "content": question}))
            messages += self.turn_messages(tool_turns(exchange))
            if outputs := past_outputs(exchange, signature, self.steps.outputs):
                messages += self.end_messages("", ToolCallArgs(name=FINISH, args=jsonable(outputs)))
        return messages


def _with_instructions(messages: list[Message], run: list[Message]) -> list[Message]:
    """Add the messages of a run; instructions in its history become part of the system message."""
    instructions = [message["content"] for message in run if message["role"] == "system"]
    system = {**messages[0], "content": "\n\n".join([messages[0]["content"], *instructions])}
    return [system, *messages[1:], *(message for message in run if message["role"] != "system")]


def observation_message(turn: Turn) -> Message:
    """Return a result's message: its text, then its images and files as content parts."""
    if not turn.media:
        return {"role": "user", "content": turn.observation}
    media = "\n".join(str(part.model_dump()) for part in turn.media)  # DSPy's markers
    return to_content_parts({"role": "user", "content": f"{turn.observation}\n{media}"})


def with_request(messages: list[Message], text: str) -> list[Message]:
    """Add a text to the end of the last message."""
    *earlier, last = messages
    content = last["content"]
    asked = f"{content}\n\n{text}" if isinstance(content, str) else [*content, {"type": "text", "text": text}]
    return [*earlier, {**last, "content": asked}]


def _call(call: ToolCallArgs | Mapping[str, Any]) -> ToolCallArgs:
    return call if isinstance(call, ToolCallArgs) else ToolCallArgs.model_validate(call)


def inputs_text(signature: type[dspy.Signature], values: Mapping[str, Any]) -> str:
    fields = {
        name: field
        for name, field in signature.input_fields.items()
        if name in values and name != "trajectory" and not is_history(field.annotation)
    }
    return replace_surrogates(
        "\n".join(f"{name}: {format_field_value(field, values[name])}" for name, field in fields.items())
    )


def describe_inputs(signature: type[dspy.Signature]) -> str:
    """Return a line for every input with a description; empty if none has one."""
    lines = []
    for name, field in signature.input_fields.items():
        description = field_description(name, field)
        if name != "trajectory" and not is_history(field.annotation) and description:
            lines.append(f"- {name}: {description}")
    return "You are given:\n" + "\n".join(lines) if lines else ""
