"""Reads the LM's reply delta by delta, whichever way it was asked: yields the thoughts and the growing answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from oneturn.core.steps import AnswerDelta, Thought
from oneturn.programs.react.step_reader import IsChecked, StepReader
from oneturn.programs.stream_parsers import EndingCall, NativeCallReader
from oneturn.tools.registry import FINISH


class DeltaReader:
    """Reads one step: of text, of function calls, or of both.

    Text that isn't the JSON of a step yields nothing here, since a function call may follow: the run emits it after it
    has read the reply. Reasoning is a thought of its own, before the step's.

    Args:
        answer_field: the output field that holds the answer, if there is one.
        attempt: the number of the attempt at the answer.
        thoughts: whether steps have thoughts.
        is_checked: as in :class:`oneturn.programs.react.step_reader.StepReader`.

    Attributes:
        reasoning_emitted: whether the reasoning has been yielded.
    """

    def __init__(self, answer_field: str | None, attempt: int, thoughts: bool, is_checked: IsChecked | None = None):
        self._text_reader = StepReader(answer_field, attempt, thoughts, is_checked)
        self._is_checked = is_checked
        self._native_checked = False
        ending = EndingCall(FINISH, answer_field or "", "calls")
        self._call_reader = NativeCallReader(ending)
        self._attempt = attempt
        self._thoughts = thoughts
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
        return self._native_answer or self._text_reader.emitted_answer

    def read(self, delta: Any) -> Iterator[Thought | AnswerDelta]:
        """Take the next delta (of ``lm15``); yield what it completes."""
        if delta.type == "thinking":
            self._reasoning.append(delta.text)
        elif delta.type == "text":
            self._text.append(delta.text)
            for step in self._text_reader.read(delta.text):
                yield from self._emit_reasoning()
                yield step
        elif delta.type == "tool_call":
            yield from self._read_call(delta)

    def _read_call(self, delta: Any) -> Iterator[Thought | AnswerDelta]:
        if self._first_call is None:
            self._first_call = delta.part_index
            yield from self._emit_reasoning()
            text = "".join(self._text).strip()
            if self._thoughts and text and not self.thought_emitted:
                self._native_thought = True
                yield Thought(text)
        if delta.part_index != self._first_call:  # a run ends with its first call only
            return
        for _, text in self._call_reader.read(delta):
            if not self._native_answer and self._is_checked is not None:
                self._native_checked = self._is_checked(self._call_reader.arguments)
            self._native_answer += text
            yield AnswerDelta(text, self._attempt, self._native_checked)

    def _emit_reasoning(self) -> Iterator[Thought]:
        if not self.reasoning_emitted and (reasoning := "".join(self._reasoning).strip()):
            self.reasoning_emitted = True
            yield Thought(reasoning)
