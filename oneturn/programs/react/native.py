"""Function calling: the tools and ``finish`` are functions, and the chat consists of their calls and results.

The functions are the same in all requests, so that providers compile and cache them once; ``tool_choice`` alone ends a
run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import dspy
from dspy.utils.exceptions import AdapterParseError

from oneturn.lm.capabilities import ToolCalling
from oneturn.lm.replay import state_in
from oneturn.programs.react.api_prompt import alternate, with_last_step
from oneturn.programs.react.function_names import to_function_name
from oneturn.programs.react.prompt import EMPTY_REPLY, Message, StepAdapter, observation_message
from oneturn.programs.react.reply_text import visible_text
from oneturn.programs.react.schema import StepSchema
from oneturn.programs.react.trajectory import ToolCallArgs, Turn
from oneturn.tools.registry import FINISH

_PROTOCOL = f"""\
You work in steps: call a tool, read its result, and take the next step. Take arguments from the question or from \
results, never invent them. As soon as the results hold the answer, or can't, call {FINISH}."""
_ENDED = "The run has ended."
_SHORT = 24  # characters, in which a call written as text shows itself
_PREAMBLE = 120  # characters: Claude says what it is about to do before it calls a tool


class NativeAdapter(StepAdapter):
    """Formats and parses steps for an LM with function calling.

    Args:
        steps: the schema of a step.
        allowed: the names that the step may call; if that is ``finish`` alone, ``tool_choice`` names it.
        choice: the strongest ``tool_choice`` that the LM takes.
        narrow: whether the LM's provider takes a narrow dialect of JSON Schema only.
        answer_field: the output field that holds the answer, if there is one.
        replay_reasoning: whether to send the LM's reasoning of this run back to it.
        unsigned_as_text: whether to write the calls of which the LM's signature is missing as text.
    """

    tool_calling: ToolCalling = "native"

    def __init__(
        self,
        steps: StepSchema,
        allowed: Iterable[str],
        choice: Literal["required", "auto"] = "required",
        narrow: bool = False,
        answer_field: str | None = None,
        replay_reasoning: bool = False,
        unsigned_as_text: bool = False,
    ):
        super().__init__(steps, allowed)
        self.use_native_function_calling = True  # DSPy would drop the tools otherwise
        self.choice = choice
        self.narrow = narrow
        self.answer_field = answer_field
        self.replay_reasoning = replay_reasoning
        self.unsigned_as_text = unsigned_as_text
        if answer_field is not None and steps.required_outputs <= {answer_field}:
            self.plain_answer = _SHORT if choice == "required" else _PREAMBLE

    def request_options(self, lm: dspy.BaseLM) -> dict[str, Any]:
        """Return the functions, and the choice among them.

        Where the run may not finish yet, because a client requires a call, they are only those that may be called.
        """
        choice: Any = self.choice
        functions = self.steps.functions(self.narrow)
        if FINISH not in self.allowed:
            names = {to_function_name(name) for name in self.allowed}
            functions = [each for each in functions if each["function"]["name"] in names]
        if len(self.allowed) == 1 and choice == "required":
            choice = {"type": "function", "function": {"name": to_function_name(next(iter(self.allowed)))}}
        return {"tools": functions, "tool_choice": choice}

    def protocol(self) -> str:
        """Return how to work; the request's functions describe the tools."""
        names = [name for name in self.steps.outputs if name in self.steps.required_outputs]
        return f"{_PROTOCOL[:-1]} with {', '.join(names)}." if len(names) > 1 else _PROTOCOL

    def format(
        self, signature: type[dspy.Signature], demos: list[dict[str, Any]], inputs: dict[str, Any]
    ) -> list[Message]:
        """Return the complete chat, with function calls and their results."""
        messages = self._number_calls(alternate(super().format(signature, demos, inputs)))
        if self.allowed == {FINISH} and self.choice == "auto" and len(self.steps.names) > 1:
            return with_last_step(messages)
        return messages

    def read(self, signature: type[dspy.Signature], reply: Mapping[str, Any]) -> dict[str, Any]:
        """Return the calls in a reply as a step. A reply of text is the answer if no other output is required.

        Raises:
            AdapterParseError: the reply has no call, and its text isn't the answer.
        """
        text, reasoning = visible_text(reply.get("text") or ""), reply.get("reasoning_content") or ""
        if made := list(reply.get("tool_calls") or ()):
            first, *more = [self._function_call(call["function"]) for call in made]
            state = state_in(made[0].get("id"))
            return {"thought": text, "tool_call": first, "parallel_calls": more, "reasoning": reasoning, "state": state}
        for written in (text, "" if text else reasoning):  # some servers take a call for the reasoning's end
            if (step := self._written_step(signature, written)) is not None:
                return {**step, "reasoning": reasoning if written is text else ""}
        if text and self.answer_field is not None and self.plain_answer is not None:
            finish = ToolCallArgs(name=FINISH, args={self.answer_field: text})
            return {"thought": "", "tool_call": finish, "reasoning": reasoning}
        raise AdapterParseError(
            adapter_name=type(self).__name__,
            signature=signature,
            lm_response=text,
            message="The reply calls no function.",
        )

    def _function_call(self, function: Mapping[str, Any]) -> ToolCallArgs:
        call = self._call_of(function)
        return ToolCallArgs(name=call.name, args=self.steps.parse_any(call.name, call.args)) if self.narrow else call

    def _written_step(self, signature: type[dspy.Signature], text: str) -> dict[str, Any] | None:
        """Return a step that the LM wrote as text, as some do; ``None`` if the text is none, or only shows a call."""
        try:
            step = self.parse(signature, text, examples=False)
        except AdapterParseError:
            return None
        return step if step["tool_call"].name in self.steps.names else None

    def turn_messages(self, turns: Iterable[Turn]) -> list[Message]:
        messages: list[Message] = []
        calling: Message = {}
        media: list[Message] = []  # after all results of the step, since most APIs take text only as a result
        for turn in turns:
            if not turn.same_step:
                messages += media
                media = []
            if turn.tool_call is None:
                calling = {}
                if turn.reply is not None:
                    messages.append({"role": "assistant", "content": turn.reply or EMPTY_REPLY})
                messages.append({"role": "user", "content": turn.observation})
                continue
            if self.unsigned_as_text and not turn.state and not (turn.same_step and calling):
                calling = {}
                messages.append({"role": "user", "content": f"{_as_text(turn.tool_call)}\nResult: {turn.observation}"})
                media += [observation_message(turn)] if turn.media else []
                continue
            if turn.same_step and calling:
                calling["tool_calls"] += _tool_calls(turn.tool_call)
            else:
                calling = self._calling(turn.thought, turn.tool_call, turn)
                messages.append(calling)
            messages.append({"role": "tool", "content": turn.observation})
            media += [observation_message(turn)] if turn.media else []
        return messages + media

    def end_messages(self, thought: str | None, call: ToolCallArgs) -> list[Message]:
        if self.unsigned_as_text:
            return [{"role": "user", "content": _as_text(call)}]
        return [self._calling(thought, call), {"role": "tool", "content": _ENDED}]

    def _calling(self, thought: str | None, call: ToolCallArgs, turn: Turn | None = None) -> Message:
        content = thought if thought and self.steps.thoughts else None
        message: Message = {"role": "assistant", "content": content, "tool_calls": _tool_calls(call)}
        if turn is not None and turn.state:
            message["state"] = turn.state
        elif turn is not None and turn.reasoning and self.replay_reasoning:
            message["reasoning_content"] = turn.reasoning
        return message

    def _number_calls(self, messages: Iterable[Message]) -> list[Message]:
        """Give each call, and its result, an id by its position, so that a request begins with the bytes of the last.

        Mistral's API takes nine letters and digits only.
        """
        self.states.clear()
        numbered: list[Message] = []
        made = answered = 0
        for message in messages:
            if calls := message.get("tool_calls"):
                ids = [f"call{made + offset:05d}" for offset in range(len(calls))]
                made += len(calls)
                state = message.get("state")
                message = {key: value for key, value in message.items() if key != "state"}
                message["tool_calls"] = [{"id": id, **call} for id, call in zip(ids, calls, strict=True)]
                if state:
                    self.states[ids[0]] = state
            elif message["role"] == "tool":
                message = {**message, "tool_call_id": f"call{answered:05d}"}
                answered += 1
            numbered.append(message)
        return numbered


def _as_text(call: ToolCallArgs) -> str:
    arguments = json.dumps(call.model_dump(mode="json")["args"], ensure_ascii=False)
    return f"You called {to_function_name(call.name)} with {arguments}."


def _tool_calls(call: ToolCallArgs) -> list[dict[str, Any]]:
    arguments = json.dumps(call.model_dump(mode="json")["args"], ensure_ascii=False)
    return [{"type": "function", "function": {"name": to_function_name(call.name), "arguments": arguments}}]
