"""One call of a predictor: its answer and its thought, streamed while the LM writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import dspy

from oneturn.core._dspy import RequestAdapter, parse_value
from oneturn.core.run_context import call_settings
from oneturn.core.steps import Thought
from oneturn.lm.format_fallback import with_format_fallback
from oneturn.lm.streaming import OnDelta, tapped_replies
from oneturn.programs.stream_parsers import (
    AnswerPiece,
    EndingCall,
    JSONReader,
    NativeCallReader,
    Piece,
    Reader,
    reader_for,
)


@dataclass(frozen=True)
class StreamedFields:
    """The fields to stream from a predictor's reply.

    Attributes:
        answer: the field that holds the answer, if the reply has one.
        thought: the field that holds the LM's thought, if the reply has one.
        ending: the tool call that holds the answer as an argument, if there is one.
        others: the types of the fields that the reply must have besides the answer.
        final: whether nothing replaces the answer of a valid reply.
    """

    answer: str | None = None
    thought: str | None = None
    ending: EndingCall | None = None
    others: Mapping[str, Any] = field(default_factory=dict)
    final: bool = False


class PredictorCall:
    """Emits the events of one predictor call.

    Args:
        emit: receives the events; raises once the consumer is gone.
        replies: numbers the replies of the whole run.
        fields: the fields to stream from its replies.
        lm_config: returns the settings of its LM call that the request asks for.

    Attributes:
        format: the adapter that wrote the prompt; it determines the format of the reply.
    """

    def __init__(
        self,
        emit: Callable[[Any], None],
        replies: Iterator[int],
        fields: StreamedFields,
        lm_config: Callable[[], dict[str, Any]] = dict,
    ):
        self.lm_config = lm_config
        self._emit = emit
        self._replies = replies
        self._fields = fields
        self._thought_emitted = False
        self.format: Any = None

    def reply(self) -> OnDelta:
        """Start a reply; return the callback for its deltas."""
        number = next(self._replies)
        texts: dict[str, str] = {}
        reader = self._text_reader()
        read = self._build_reader(reader)
        checked: bool | None = None

        def on_delta(delta: Any) -> None:
            nonlocal checked
            self._emit(None)
            for name, text in read(delta):
                if name == self._fields.answer:
                    self._emit_thought(texts.get(self._fields.thought or "", ""))
                    if checked is None:
                        written = reader.values if isinstance(reader, JSONReader) else {**texts, name: text}
                        checked = self._is_checked(written)
                    self._emit(AnswerPiece(number, text, checked))
                else:
                    texts[name] = texts.get(name, "") + text

        return on_delta

    def _is_checked(self, values: Mapping[str, Any]) -> bool:
        """Whether the rest of the answer is all that the reply lacks, and its other fields are valid.

        ``values`` are its fields so far, in the order written.
        """
        if self._fields.ending is not None:
            return self._fields.final
        missing = self._fields.others.keys() - values.keys()
        if not self._fields.final or missing or list(values)[-1] != self._fields.answer:
            return False
        return all(_is_valid(values[name], annotation) for name, annotation in self._fields.others.items())

    def _text_reader(self) -> Reader | None:
        fields = self._fields
        names = dict.fromkeys(name for name in (fields.answer, fields.thought, *fields.others) if name is not None)
        return None if fields.answer is None else reader_for(self.format, names, fields.ending)

    def _build_reader(self, text: Reader | None) -> Callable[[Any], Iterable[Piece]]:
        """Return a function that parses the deltas of one reply.

        A reply without the answer isn't parsed: its thought is emitted when the call ends.
        """
        fields = self._fields
        if fields.answer is None:
            return lambda delta: ()
        native = NativeCallReader(fields.ending) if fields.ending is not None else None

        def read(delta: Any) -> Iterable[Piece]:
            if delta.type == "text" and text is not None:
                return text.read(delta.text)
            if delta.type == "tool_call" and native is not None:
                return native.read(delta)
            return [(fields.thought or "", delta.text)] if delta.type == "thinking" else ()

        return read

    def thought_in(self, outputs: Any) -> Thought | None:
        """Return the thought in the predictor's outputs; ``None`` if there is none or it was emitted before."""
        thought = str(outputs.get(self._fields.thought) or "").strip() if self._fields.thought else ""
        return None if self._thought_emitted or not thought else Thought(thought)

    def _emit_thought(self, thought: str) -> None:
        if self._fields.thought and thought.strip() and not self._thought_emitted:
            self._thought_emitted = True
            self._emit(Thought(thought.strip()))


def _is_valid(value: Any, annotation: Any) -> bool:
    try:
        parse_value(value, annotation)
    except (ValueError, TypeError):
        return False
    return True


class TappingAdapter:
    """Wraps a predictor's adapter for one call and streams the LM's replies to ``call``."""

    def __init__(self, adapter: Any, call: PredictorCall):
        self._adapter = adapter.untapped if isinstance(adapter, TappingAdapter) else adapter
        self.call = call

    @property
    def untapped(self) -> dspy.Adapter:
        """The wrapped adapter."""
        return self._adapter

    def __call__(self, lm: Any, lm_kwargs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Call the wrapped adapter with the request's settings and a view of ``lm``.

        The view streams, and weakens a refused response format.
        """
        view = tapped_replies(lm, self.call.reply)
        if view is lm and not isinstance(self._adapter, RequestAdapter):
            view = with_format_fallback(lm)
        return self._adapter(view, {**lm_kwargs, **call_settings(self.call.lm_config(), lm)}, *args, **kwargs)

    async def acall(self, lm: Any, lm_kwargs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Call the wrapped adapter with the request's settings; the reply arrives in one piece."""
        settings = {**lm_kwargs, **call_settings(self.call.lm_config(), lm)}
        return await self._adapter.acall(lm, settings, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._adapter, name)
