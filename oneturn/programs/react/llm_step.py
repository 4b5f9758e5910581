"""The LM calls of one run: each is one call of the step predictor, streamed if the run streams."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import dspy
from dspy.utils.exceptions import (
    AdapterParseError,
    ContextWindowExceededError,
    LMError,
    LMUnsupportedFeatureError,
)
from mlflow.entities import SpanType

from oneturn.core._dspy import CachedReplies
from oneturn.core.background import ConsumerGone, stream_in_thread
from oneturn.core.run_context import call_settings, current_run
from oneturn.core.steps import AnswerDelta, Thought, Working
from oneturn.core.tracing import child_span, set_usage
from oneturn.core.usage import NO_USAGE, CallTracker, track_usage
from oneturn.errors import ProgramError
from oneturn.lm.capabilities import ToolCalling, is_format_refusal
from oneturn.lm.endings import error_cause
from oneturn.lm.reply_ending import ReplyEnded, with_reply_check
from oneturn.lm.streaming import OnDelta
from oneturn.programs.react.demo_pool import DemoPool
from oneturn.programs.react.grounding import SeenValues
from oneturn.programs.react.prompt import StepAdapter
from oneturn.programs.react.schema import StepSchema
from oneturn.programs.react.step_reader import IsChecked, StepReader
from oneturn.programs.react.step_stream import DeltaReader
from oneturn.programs.react.tool_calling import AdapterSelector, ToolCallingOption
from oneturn.programs.react.trajectory import ToolCallArgs, Turn


@dataclass(frozen=True)
class Allowed:
    """What the next step may contain: the tool names it may call, and the values its arguments may take."""

    names: frozenset[str]
    seen_values: SeenValues


@dataclass(frozen=True)
class StepCall:
    """The LM's step: its reasoning, its thought and its calls, what its API requires back, and what was streamed."""

    thought: str | None
    calls: tuple[ToolCallArgs, ...]
    reasoning: str = ""
    state: str = ""
    reasoning_emitted: bool = False
    thought_emitted: bool = False
    emitted_answer: str = ""
    attempt: int = 0

    @property
    def call(self) -> ToolCallArgs:
        """The call, or the first of several parallel calls."""
        return self.calls[0]


class StepCaller:
    """Calls the LM for the steps of one run, and counts its usage.

    Args:
        predict: the step predictor, which an optimizer may have compiled.
        schema: the schema of a step.
        answer_field: the output field whose text is streamed, if there is one.
        inputs: the run's inputs.
        streaming: whether steps are streamed; a cancelled run then doesn't wait for its LM.
        tool_calling: how the LM is asked for its steps.
        pool: the pool of which the demos for these inputs follow those of the predictor; ``None`` for no more demos.

    Attributes:
        narrows: whether the LM is held to what the run allows at each step.
        usage: the usage of the run so far; the run adds that of its tools.

    Raises:
        ProgramError: no LM is configured.
    """

    def __init__(
        self,
        predict: dspy.Predict,
        schema: StepSchema,
        answer_field: str | None,
        inputs: dict[str, Any],
        streaming: bool,
        tool_calling: ToolCallingOption = "auto",
        pool: DemoPool | None = None,
    ):
        lm = predict.lm or dspy.settings.lm
        if lm is None:
            raise ProgramError("No LM is configured. Call dspy.configure(lm=…), or program.set_lm(…).")
        self._lm: dspy.BaseLM = lm
        self._lm_settings = current_run().lm_settings
        self._predict = predict
        self._schema = schema
        self._inputs = inputs
        self._demos = [*predict.demos, *([] if pool is None else pool.choose(inputs))]
        self._answer_field = answer_field
        self._streaming = streaming
        self._adapters = AdapterSelector(lm, schema, tool_calling, answer_field)
        self.narrows = self._adapters.narrows
        self._adapter: StepAdapter | None = None
        self._replies = CachedReplies()
        self._callbacks = [self._replies] if lm.cache or predict.config.get("cache") else []  # each costs DSPy time
        self.usage = NO_USAGE

    @property
    def tool_calling(self) -> ToolCalling:
        """How the LM is asked now; a refusal of its provider changes it."""
        return self._adapters.adapter(self._schema.names, SeenValues()).tool_calling

    def next_step(
        self, trajectory: list[Turn], allowed: Allowed, attempt: int, is_checked: IsChecked | None = None
    ) -> Generator[Thought | AnswerDelta | Working, None, StepCall]:
        """Call the LM once; yield the thought, and the answer's text while the LM writes a ``finish`` call.

        Raises:
            AdapterParseError: the reply can't be parsed as a step.
            ContextWindowExceededError: the prompt is too long.
            ReplyEnded: the reply was cut, filtered or refused. The part of the answer that was written is yielded.
        """
        free, text_first = self._adapters.free_thought, self._adapters.text_first
        reader = DeltaReader(
            self._answer_field, attempt, self._schema, self._plain_answer, is_checked, free, text_first
        )
        try:
            if self._streaming:
                return (yield from self._stream_next_step(reader, trajectory, allowed))
            return self._step(self._call(trajectory, allowed), attempt)
        except ConsumerGone:  # the LM's connection was closed because the run was cancelled
            current_run().check()
            raise
        except ReplyEnded as ended:
            if ended.ending == "max_output_tokens" and not reader.emitted_answer and self._plain_answer() is not None:
                yield from reader.read_plain(ended.text)
            if ended.ending == "max_output_tokens" and not reader.emitted_answer:
                rest = StepReader(self._answer_field, attempt, self._schema, thoughts=False, text_first=text_first)
                yield from rest.read(ended.text)
            raise

    def _stream_next_step(
        self, reader: DeltaReader, trajectory: list[Turn], allowed: Allowed
    ) -> Generator[Thought | AnswerDelta | Working, None, StepCall]:
        def call(emit: Callable[[Any], None]) -> dspy.Prediction:
            return self._call(trajectory, allowed, emit)

        events = stream_in_thread(call, Working(), gathers=lambda: bool(reader.emitted_answer))
        try:
            while True:
                event = next(events)
                yield from [event] if isinstance(event, Working) else reader.read(event)
        except StopIteration as end:
            prediction: dspy.Prediction = end.value
        finally:
            events.close()
        return self._step(prediction, reader.attempt, reader)

    def _plain_answer(self) -> int | None:
        """Return after how many characters plain text streams as the answer; ``None`` if it isn't one."""
        return self._adapter.plain_answer if self._adapter is not None else None

    def _step(self, prediction: dspy.Prediction, attempt: int, reader: DeltaReader | None = None) -> StepCall:
        calls = [prediction.tool_call, *(prediction.get("parallel_calls") or ())]
        made = tuple(
            ToolCallArgs(name=call.name, args=self._schema.without_nulls(call.name, call.args)) for call in calls
        )
        thought = prediction.get("thought") if self._schema.thoughts else None
        reasoning = (prediction.get("reasoning") or "").strip()
        state = prediction.get("state") or ""
        if reader is None:
            return StepCall(thought, made, reasoning, state, attempt=attempt)
        emitted = reader.reasoning_emitted, reader.thought_emitted, reader.emitted_answer
        return StepCall(thought, made, reasoning, state, *emitted, attempt)

    def record(self, trajectory: list[Turn], step: StepCall | None, error: str | None = None) -> None:
        """Add the run to DSPy's trace as one entry: its last step and the trajectory before it, as plain data.

        Optimizers that build demos from traces get complete runs only. Optimizers that reflect on failures get the
        trajectory and the ``error`` of a failed run.
        """
        trace: list[Any] | None = dspy.settings.trace
        if trace is None or dspy.settings.max_trace_size <= 0:
            return
        entry = dspy.Prediction(**_step_outputs(step), **({} if error is None else {"error": error}))
        if len(trace) >= dspy.settings.max_trace_size:  # as dspy.Predict does: a server never clears its trace
            trace.pop(0)
        turns = [turn.model_dump(mode="json") for turn in trajectory]
        trace.append((self._predict, {**self._inputs, "trajectory": turns}, entry))

    def forget_replies(self) -> None:
        """Make DSPy's cache forget the run's replies: a run that failed must not fail again from the cache."""
        self._replies.forget()

    def _call(self, trajectory: list[Turn], allowed: Allowed, on_delta: OnDelta | None = None) -> dspy.Prediction:
        while True:
            adapter = self._adapter = self._adapters.adapter(allowed.names, allowed.seen_values, first=not trajectory)
            lm = with_reply_check(self._lm, adapter.is_complete, on_delta, adapter.states)
            try:
                return self._call_with(adapter, lm, trajectory)
            except ReplyEnded:
                raise
            except LMError as error:
                self._raise_cause(adapter, error)
                if not is_format_refusal(error) and _without_media(trajectory, error):
                    continue
                if not self._adapters.falls_back(adapter, error):
                    raise

    def _raise_cause(self, adapter: StepAdapter, error: LMError) -> None:
        """Raise the exception for an error whose cause is known, whichever way the provider says it."""
        cause = error_cause(error)
        if cause == "failed_reply":
            raise AdapterParseError(type(adapter).__name__, self._predict.signature, "") from error
        if cause == "content_filter":
            raise ReplyEnded("content_filter", str(error), {}) from error
        if cause == "context_length" and not isinstance(error, ContextWindowExceededError):
            raise ContextWindowExceededError(model=self._lm.model, message=error.message) from error

    def _call_with(self, adapter: StepAdapter, lm: dspy.BaseLM, trajectory: list[Turn]) -> dspy.Prediction:
        tracker = CallTracker()
        inputs = {"steps_so_far": len(trajectory), "tool_calling": adapter.tool_calling}
        with child_span(self._lm.model, SpanType.CHAT_MODEL, inputs) as span:
            try:
                request = self._lm_settings.config(self.usage.output_tokens)
                if "max_tokens" in request:  # half of it is left for the JSON
                    adapter.free_tokens = min(adapter.free_tokens, request["max_tokens"] // 2)
                config = call_settings({**self._thought_config(adapter), **request}, self._lm)
                callbacks = [*dspy.settings.callbacks, *self._callbacks]
                with dspy.context(adapter=adapter, trace=None, callbacks=callbacks), track_usage(tracker):
                    turns = list(trajectory)
                    prediction = self._predict(
                        lm=lm, config=config, demos=self._demos, **self._inputs, trajectory=turns
                    )
                if span is not None:
                    span.set_outputs({"thought": prediction.get("thought"), **prediction.tool_call.model_dump()})
                return prediction
            except ReplyEnded as ended:  # DSPy counts only replies that it gets
                with track_usage(tracker):
                    tracker.add_usage(self._lm.model, ended.usage)
                raise
            finally:
                self.usage += tracker.usage
                if span is not None:
                    set_usage(span, tracker.usage)

    def _thought_config(self, adapter: StepAdapter) -> dict[str, Any]:
        """Return the LM's own token limit with room for a free thought, unless the request has one."""
        limit = self._lm.kwargs.get("max_tokens")
        return {} if limit is None or not adapter.free_tokens else {"max_tokens": limit + adapter.free_tokens}


def _without_media(trajectory: list[Turn], error: LMError) -> bool:
    """Remove what the LM's engine can't carry from the tools' results, whose texts name it; return whether it did."""
    with_media = [turn for turn in trajectory if turn.media] if isinstance(error, LMUnsupportedFeatureError) else []
    for turn in with_media:
        turn.with_media(())
    return bool(with_media)


def _step_outputs(step: StepCall | None) -> dict[str, Any]:
    if step is None:
        return {}
    thought = {} if step.thought is None else {"thought": step.thought}
    return {**thought, "tool_call": step.call.model_dump(mode="json")}
