"""What can already be told of a step that is still being written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic_core import from_json

from oneturn.plain_json import sound
from oneturn.steps import AnswerDelta, Thought
from oneturn.tools.toolset import FINISH


class StepReader:
    """Reads one step's JSON piece by piece: its thought once that is whole, its answer as it grows.

    The answer is the string argument ``answer_field`` of a ``finish`` call. Text that isn't JSON tells
    nothing; the run tells it when the step is parsed.

    Args:
        answer_field: the output field that is the answer, if there is one.
        attempt: which attempt at the answer this is.
        thoughts: whether steps have thoughts; one that an LM writes all the same isn't told.

    Attributes:
        thought_told: whether the thought has been given.
        answer_told: the part of the answer that has been given.
    """

    def __init__(self, answer_field: str | None, attempt: int, thoughts: bool = True):
        self._answer_field = answer_field
        self._thoughts = thoughts
        self._attempt = attempt
        self._written = ""
        self.thought_told = False
        self.answer_told = ""

    def read(self, piece: str) -> Iterator[Thought | AnswerDelta]:
        """Take the next piece of text; give what it completes."""
        self._written += piece
        try:
            step = from_json(sound(self._written), allow_partial="trailing-strings")
        except ValueError:
            return
        if not isinstance(step, Mapping) or not isinstance(step.get("tool_call"), Mapping):
            return
        if self._thoughts and not self.thought_told and step.get("thought"):
            self.thought_told = True
            yield Thought(str(step["thought"]))
        answer = self._answer(step["tool_call"])
        if new := answer[len(self.answer_told) :]:
            self.answer_told += new
            yield AnswerDelta(new, self._attempt)

    def _answer(self, call: Mapping[str, Any]) -> str:
        args = call.get("args")
        if call.get("name") != FINISH or not isinstance(args, Mapping):
            return ""
        answer = args.get(self._answer_field) if self._answer_field is not None else None
        return answer if isinstance(answer, str) else ""
