"""Read a step while the LM writes it: its thought, and the text of its answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from oneturn.core.steps import AnswerDelta, Thought
from oneturn.programs.react.reply_parser import PartialStep, split_reply
from oneturn.programs.react.schema import StepSchema
from oneturn.programs.react.text_first import partial_outputs
from oneturn.tools.registry import FINISH

IsChecked = Callable[[Mapping[str, Any]], bool]


class StepReader:
    """Reads one step's JSON piece by piece: yields its thought once it is complete, and its answer as it grows.

    The answer is the string argument ``answer_field`` of a ``finish`` call. Text before the step's JSON yields nothing
    unless it is the thought, nor does anything after it.

    Args:
        answer_field: the output field that holds the answer, if there is one.
        attempt: the number of the attempt at the answer.
        schema: the schema of a step.
        thoughts: whether to yield the thought; a schema without thoughts has none.
        free_thought: whether the thought is the text before the JSON, if there is any.
        is_checked: returns whether nothing but the answer is still to be checked, from the arguments so far; ``None``
            if nobody knows.
        text_first: whether the reply may be text and then the outputs, without a call.

    Attributes:
        thought_emitted: whether the thought has been yielded.
        emitted_answer: the part of the answer that has been yielded.
    """

    def __init__(
        self,
        answer_field: str | None,
        attempt: int,
        schema: StepSchema,
        thoughts: bool = True,
        is_checked: IsChecked | None = None,
        free_thought: bool = False,
        text_first: bool = False,
    ):
        self._answer_field = answer_field
        self._names = schema.function_names
        self._thoughts = thoughts and schema.thoughts
        self._free_thought = free_thought
        self._outputs = schema.outputs if text_first else None
        self._attempt = attempt
        self._is_checked = is_checked
        self._checked = False
        self._reply = ""
        self._step = PartialStep()
        self.thought_emitted = False
        self.emitted_answer = ""

    def read(self, piece: str) -> Iterator[Thought | AnswerDelta]:
        """Take the next piece of text; yield what it completes."""
        self._reply += piece
        step = None if self._outputs is None else partial_outputs(self._reply, self._outputs)
        text = ""
        if step is None:
            text, written = split_reply(self._reply) if self._free_thought else ("", self._reply)
            step = self._step.read(written)
        if step is None:
            return
        thought = text or (step["before"] if self._free_thought else "") or step.get("thought")
        if self._thoughts and not self.thought_emitted and thought:
            self.thought_emitted = True
            yield Thought(str(thought))
        answer = self._answer(step["tool_call"])
        if new := answer[len(self.emitted_answer) :]:
            if not self.emitted_answer and self._is_checked is not None:
                self._checked = self._is_checked(step["tool_call"]["args"])
            self.emitted_answer += new
            yield AnswerDelta(new, self._attempt, self._checked)

    def _answer(self, call: Mapping[str, Any]) -> str:
        args = call.get("args")
        if self._names.resolve(call.get("name") or "") != FINISH or not isinstance(args, Mapping):
            return ""
        answer = args.get(self._answer_field) if self._answer_field is not None else None
        return answer if isinstance(answer, str) else ""
