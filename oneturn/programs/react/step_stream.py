"""Reads the LM's reply delta by delta, whichever way it was asked: yields the thoughts and the growing answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from oneturn.core.steps import AnswerDelta, Thought
from oneturn.programs.react.reply_text import PlainAnswer, visible_text
from oneturn.programs.react.schema import StepSchema
from oneturn.programs.react.step_reader import IsChecked, StepReader
from oneturn.programs.stream_parsers import EndingCall, NativeCallReader
from oneturn.tools.registry import FINISH


class DeltaReader:
    """Reads one step: of text, of function calls, or of both.

    Text that isn't the JSON of a step yields nothing, unless it is the answer; a function call that follows makes it a
    thought, and starts a new attempt. Reasoning is a thought of its own, before the step's.

    Args:
        answer_field: the output field that holds the answer, if there is one.
        attempt: the number of the attempt at the answer.
        schema: the schema of a step.
        plain_answer: returns after how many characters plain text streams as the answer; ``None`` if it isn't one.
        is_checked: as in :class:`oneturn.programs.react.step_reader.StepReader`.
        free_thought: likewise.
        text_first: likewise.

    Attributes:
        attempt: the number of the attempt at the answer, for the next text.
        reasoning_emitted: whether the reasoning has been yielded.
    """

    def __init__(
        self,
        answer_field: str | None,
        attempt: int,
        schema: StepSchema,
        plain_answer: Callable[[], int | None],
        is_checked: IsChecked | None = None,
        free_thought: bool = False,
        text_first: bool = False,
    ):
        self._text_reader = StepReader(
            answer_field, attempt, schema, True, is_checked, free_thought=free_thought, text_first=text_first
        )
        self._is_checked = is_checked
        self._native_checked = False
        self._names = schema.function_names
        ending = EndingCall(FINISH, answer_field or "", "calls")
        self._call_reader = NativeCallReader(ending)
        self._plain_answer = plain_answer
        self._plain = PlainAnswer()
        self.attempt = attempt
        self._thoughts = schema.thoughts
        self._reasoning: list[str] = []
        self._text: list[str] = []
        self._first_call: int | None = None
        self._native_answer = ""
        self._native_thought = False
        self.reasoning_emitted = False

    @property
    def thought_emitted(self) -> bool:
        """Whether the thought has been yielded."""
        return self._native_thought or self._text_reader.thought_emitted

    @property
    def emitted_answer(self) -> str:
        """The part of the answer that has been yielded."""
        return self._native_answer or self._plain.emitted or self._text_reader.emitted_answer

    def read(self, delta: Any) -> Iterator[Thought | AnswerDelta]:
        """Take the next delta (of ``lm15``); yield what it completes."""
        if delta.type == "thinking":
            self._reasoning.append(delta.text)
        elif delta.type == "text":
            self._text.append(delta.text)
            for step in self._text_reader.read(delta.text):
                if isinstance(step, Thought) or not self._plain.emitted:  # else the run emits the answer again
                    yield from self._emit_reasoning()
                    yield step
            if self._first_call is None and (held := self._plain_answer()) is not None:
                yield from self.read_plain("".join(self._text), held)
        elif delta.type == "tool_call":
            yield from self._read_call(delta)

    def read_plain(self, text: str, held: int = 0) -> Iterator[Thought | AnswerDelta]:
        """Yield what is new in the reply so far, as plain text of the answer, from ``held`` characters on."""
        if new := self._plain.read(text, held):
            yield from self._emit_reasoning()
            yield AnswerDelta(new, self.attempt, checked=False)  # a function call that follows replaces it

    def _read_call(self, delta: Any) -> Iterator[Thought | AnswerDelta]:
        if self._first_call is None:
            self._first_call = delta.part_index
            yield from self._emit_reasoning()
            if self._plain.emitted:
                self._plain = PlainAnswer()
                self.attempt += 1
            text = visible_text("".join(self._text))
            if self._thoughts and text and not self.thought_emitted:
                self._native_thought = True
                yield Thought(text)
        if delta.part_index != self._first_call:  # a run ends with its first call only
            return
        if delta.name:
            delta = replace(delta, name=self._names.resolve(delta.name))
        for _, text in self._call_reader.read(delta):
            if not self._native_answer and self._is_checked is not None:
                self._native_checked = self._is_checked(self._call_reader.arguments)
            self._native_answer += text
            yield AnswerDelta(text, self.attempt, self._native_checked)

    def _emit_reasoning(self) -> Iterator[Thought]:
        if not self.reasoning_emitted and (reasoning := "".join(self._reasoning).strip()):
            self.reasoning_emitted = True
            yield Thought(reasoning)
