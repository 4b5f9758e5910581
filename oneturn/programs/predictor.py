"""One call of a predictor, whose LM is tapped: its answer and its thought, told while they are written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import dspy

from oneturn.core.steps import Thought
from oneturn.lm.streaming import OnDelta, tapped_replies
from oneturn.programs.stream_parsers import AnswerPiece, EndingCall, NativeCallReader, Piece, reader_for


@dataclass(frozen=True)
class StreamedFields:
    """What a predictor's reply tells of the run.

    Attributes:
        answer: the field that is the answer, if the reply has it.
        thought: the field that is the LM's thought, if the reply has one.
        ending: where the answer is an argument of a tool call: that call.
    """

    answer: str | None = None
    thought: str | None = None
    ending: EndingCall | None = None


class PredictorCall:
    """What one call of a predictor has told.

    Args:
        tell: takes what is told; fails once nobody listens.
        replies: numbers the replies of the whole run.
        fields: what its replies tell.

    Attributes:
        format: the adapter that wrote the prompt, and so knows how the reply is written.
    """

    def __init__(self, tell: Callable[[Any], None], replies: Iterator[int], fields: StreamedFields):
        self._tell = tell
        self._replies = replies
        self._fields = fields
        self._thought_told = False
        self.format: Any = None

    def reply(self) -> OnDelta:
        """A reply begins; what this gives takes its pieces."""
        number = next(self._replies)
        thought: list[str] = []
        read = self._reading()

        def on_delta(delta: Any) -> None:
            self._tell(None)
            for field, text in read(delta):
                if field == self._fields.answer:
                    self._tell_thought("".join(thought))
                    self._tell(AnswerPiece(number, text))
                else:
                    thought.append(text)

        return on_delta

    def _reading(self) -> Callable[[Any], Iterable[Piece]]:
        """How one reply is read, delta by delta. A reply without the answer isn't: its thought is told at its end."""
        told = self._fields
        if told.answer is None:
            return lambda delta: ()
        wanted = [field for field in (told.answer, told.thought) if field is not None]
        text = reader_for(self.format, wanted, told.ending)
        native = NativeCallReader(told.ending) if told.ending is not None else None

        def read(delta: Any) -> Iterable[Piece]:
            if delta.type == "text" and text is not None:
                return text.read(delta.text)
            if delta.type == "tool_call" and native is not None:
                return native.read(delta)
            return [(told.thought or "", delta.text)] if delta.type == "thinking" else ()

        return read

    def thought_in(self, outputs: Any) -> Thought | None:
        """The thought of what the predictor gave, unless it has been told."""
        thought = str(outputs.get(self._fields.thought) or "").strip() if self._fields.thought else ""
        return None if self._thought_told or not thought else Thought(thought)

    def _tell_thought(self, thought: str) -> None:
        if self._fields.thought and thought.strip() and not self._thought_told:
            self._thought_told = True
            self._tell(Thought(thought.strip()))


class TappingAdapter:
    """Stands in for a predictor's adapter while it is called: the LM that it asks is tapped."""

    def __init__(self, adapter: Any, call: PredictorCall):
        self._adapter = adapter.untapped if isinstance(adapter, TappingAdapter) else adapter
        self.call = call

    @property
    def untapped(self) -> dspy.Adapter:
        """The adapter that does the work."""
        return self._adapter

    def __call__(self, lm: Any, *args: Any, **kwargs: Any) -> Any:
        """Ask the LM, as the adapter does."""
        return self._adapter(tapped_replies(lm, self.call.reply), *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._adapter, name)
