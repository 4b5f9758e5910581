"""The reply of a program without tools: free text that ends in an output, then a JSON object of all outputs.

A small LM that is asked for JSON from the first character on answers worse than in text. An object around the outputs,
such as that of a ``finish`` call, makes it leave them empty after the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import dspy

from oneturn.lm.free_text import ANSWER_LINE, BEFORE_JSON, FreeText
from oneturn.programs.react.grounding import SeenValues
from oneturn.programs.react.prompt import Message, StepAdapter, describe_inputs
from oneturn.programs.react.protocol import CALL_AGAIN, UNPARSABLE, UNPARSABLE_OUTPUTS, WRITE_AGAIN, outputs_reminder
from oneturn.programs.react.reply_parser import STEP, is_closed, parse_object, parse_partial, text_before
from oneturn.programs.react.reply_text import without_thinking
from oneturn.programs.react.schema import StepSchema
from oneturn.programs.react.trajectory import ToolCallArgs, Turn
from oneturn.tools.registry import FINISH


class TextFirstAdapter(StepAdapter):
    """Formats and parses the steps of a program without tools, for an LM under a local grammar that allows free text.

    Each step, a repeated one too, is text and then the outputs. The text is the step's thought. Demos, and replies in
    the history, that have no thought have the line that the text ends in.

    Args:
        steps: the schema of a step, whose only call is ``finish``.
        seen_values: the values that the run has seen, to which the grammar restricts grounded outputs.
    """

    def __init__(self, steps: StepSchema, seen_values: SeenValues = SeenValues()):
        super().__init__(steps, {FINISH}, seen_values, free_thought=True)
        self.one_thought = False

    def free_text_schema(self) -> tuple[dict[str, Any], FreeText | None]:
        """Return the schema of the outputs, and the text before it."""
        text = FreeText(self.free_tokens, with_answer=True) if self.free_tokens else None
        return self.steps.outputs_schema(self.seen_values), text

    def format_system_message(self, signature: type[dspy.Signature]) -> str:
        """Return the instructions, the described inputs and the described outputs; the format follows each question."""
        parts = [signature.instructions.strip(), describe_inputs(signature), self.steps.outputs_description()]
        return "\n\n".join(part for part in parts if part)

    def protocol(self) -> str:
        """Return the described outputs, and the format of the reply."""
        return (self.steps.outputs_description() + self.reminder()).strip()

    def reminder(self) -> str:
        """Return what follows each question: the format of the reply."""
        return outputs_reminder(self.steps)

    def parse(self, signature: type[dspy.Signature], completion: str, examples: bool = True) -> dict[str, Any]:
        """Parse the LM's reply: text, then the outputs; or any other step.

        Raises:
            AdapterParseError: the reply is neither.
        """
        text, written = split_outputs(completion, self.steps.outputs)
        outputs = parse_object(written) if written else None
        if outputs:
            return {"tool_call": ToolCallArgs(name=FINISH, args=outputs), "thought": text}
        return super().parse(signature, completion, examples)

    def is_complete(self, text: str) -> bool:
        """Return whether the outputs in a reply are complete, or it is any other complete step."""
        written = split_outputs(text, self.steps.outputs)[1]
        return is_closed(written, 0) if written else super().is_complete(text)

    def turn_messages(self, turns: Iterable[Turn]) -> list[Message]:
        """Return each turn; errors speak of outputs, not of calls."""
        return super().turn_messages(_with_own_words(turn) for turn in turns)

    def end_messages(self, thought: str | None, call: ToolCallArgs) -> list[Message]:
        """Return the text and the outputs; after a thought without the answer's line, that line.

        A call of another tool is one of the history, when the client offered it.
        """
        if call.name != FINISH:
            return super().end_messages(thought, call)
        name, parts = self.steps.stated_output, [thought or ""]
        if name is not None and name in call.args and not ANSWER_LINE.search(parts[0]):
            value = call.args[name]
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            parts.append(f"{BEFORE_JSON} {' '.join(text.split())}")
        parts.append(json.dumps(call.args, ensure_ascii=False))
        return [{"role": "assistant", "content": "\n\n".join(part for part in parts if part)}]


def _with_own_words(turn: Turn) -> Turn:
    observation = turn.observation.replace(UNPARSABLE, UNPARSABLE_OUTPUTS).replace(CALL_AGAIN, WRITE_AGAIN)
    return turn if observation == turn.observation else turn.model_copy(update={"observation": observation})


def split_outputs(reply: str, outputs: Iterable[str]) -> tuple[str, str]:
    """Split a reply into its text and the rest, from the first object on that begins with an output.

    Both are empty without one, and of a reply that has a step before it: the object is then a part of the step.
    """
    visible = without_thinking(reply)
    start = re.search(rf'\{{\s*"(?:{"|".join(map(re.escape, outputs))})"\s*:', visible)
    if start is None or STEP.search(visible, 0, start.start()):
        return "", ""
    return text_before(visible, start.start()), visible[start.start() :]


def partial_outputs(reply: str, outputs: Iterable[str]) -> Mapping[str, Any] | None:
    """Return the step, as :meth:`PartialStep.read`, of a reply that is still being written, once an output has begun.

    ``None`` before that, and if there is no object of outputs.
    """
    text, written = split_outputs(reply, outputs)
    args = parse_partial(written, 0) if written else None
    if not args:
        return None
    return {"thought": None, "before": text, "tool_call": {"name": FINISH, "args": args}}
