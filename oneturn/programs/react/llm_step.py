"""The LM calls of one run: each is one call of the step predictor, watched where the run streams."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import dspy
from dspy.utils.usage_tracker import UsageTracker
from mlflow.entities import SpanType

from oneturn.core.background import stream_in_thread
from oneturn.core.steps import AnswerDelta, Thought, Usage, Working
from oneturn.core.tracing import child_span
from oneturn.errors import ProgramError
from oneturn.lm.streaming import tapped
from oneturn.programs.react.grounding import SeenValues
from oneturn.programs.react.prompt import StepAdapter
from oneturn.programs.react.schema import StepSchema
from oneturn.programs.react.trajectory import ToolCallArgs, Turn
from oneturn.programs.stream_parsers import StepReader


@dataclass(frozen=True)
class Allowed:
    """What the next step may do: the names it may call, and what it may name as arguments."""

    names: frozenset[str]
    ground: SeenValues


@dataclass(frozen=True)
class StepCall:
    """What the LM decided: its thought and its calls; and what of them was told while they were written."""

    thought: str | None
    calls: tuple[ToolCallArgs, ...]
    thought_told: bool = False
    answer_told: str = ""

    @property
    def call(self) -> ToolCallArgs:
        """The call, or the first of several that are asked for together."""
        return self.calls[0]


class StepCaller:
    """Asks the LM for the next step of one run, and keeps count.

    Args:
        predict: the step predictor, which an optimizer may have compiled.
        schema: what a step may be.
        answer_field: the output field whose text is streamed, if there is one.
        inputs: the run's inputs.
        streaming: whether somebody reads the steps as they happen: then a run that has to stop doesn't wait for its LM.

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
    ):
        lm = predict.lm or dspy.settings.lm
        if lm is None:
            raise ProgramError("No LM is configured. Call dspy.configure(lm=…), or program.set_lm(…).")
        self._lm: dspy.BaseLM = lm
        self._predict = predict
        self._schema = schema
        self._inputs = inputs
        self._answer_field = answer_field
        self._streaming = streaming
        self._usage = UsageTracker()
        self.lm_calls = 0

    def ask(
        self, trajectory: list[Turn], allowed: Allowed, attempt: int
    ) -> Generator[Thought | AnswerDelta | Working, None, StepCall]:
        """One LM call; yields the thought and the answer's text while a ``finish`` call is being written.

        Raises:
            AdapterParseError: the reply isn't a step.
            ContextWindowExceededError: the prompt is too long.
        """
        self.lm_calls += 1
        if not self._streaming:
            prediction = self._call(self._lm, trajectory, allowed)
            return StepCall(prediction.get("thought"), _calls(prediction))
        reader = StepReader(self._answer_field, attempt, self._schema.thoughts)
        return (yield from self._ask_streaming(reader, trajectory, allowed))

    def _ask_streaming(
        self, reader: StepReader, trajectory: list[Turn], allowed: Allowed
    ) -> Generator[Thought | AnswerDelta | Working, None, StepCall]:
        def call(on_text: Callable[[str | Working], None]) -> dspy.Prediction:
            return self._call(tapped(self._lm, on_text), trajectory, allowed)

        watched = stream_in_thread(call, Working())
        try:
            while True:
                told = next(watched)
                yield from [told] if isinstance(told, Working) else reader.read(told)
        except StopIteration as end:
            prediction: dspy.Prediction = end.value
        finally:
            watched.close()
        return StepCall(prediction.get("thought"), _calls(prediction), reader.thought_told, reader.answer_told)

    def record(self, trajectory: list[Turn], step: StepCall | None, error: str | None = None) -> None:
        """Put the run into DSPy's trace as one entry, its last step with all that led to it, as plain data.

        An optimizer that makes demos of traces gets whole runs, never the beginning of one; one that reflects on what
        went wrong reads what was done, and the ``error`` that the run ended with.
        """
        trace: list[Any] | None = dspy.settings.trace
        if trace is None or dspy.settings.max_trace_size <= 0:
            return
        entry = dspy.Prediction(**_told(step), **({} if error is None else {"error": error}))
        if len(trace) >= dspy.settings.max_trace_size:  # as dspy.Predict: a server's trace is never emptied
            trace.pop(0)
        turns = [turn.model_dump(mode="json") for turn in trajectory]
        trace.append((self._predict, {**self._inputs, "trajectory": turns}, entry))

    def count(self, usage: Usage) -> None:
        """Add what another part of the run has cost: the LM calls of a tool."""
        self.lm_calls += usage.lm_calls
        for model, tokens in usage.tokens.items():
            self._usage.add_usage(model, dict(tokens))

    def tokens(self) -> dict[str, dict[str, Any]]:
        """Token counts so far, by LM."""
        total: dict[str, dict[str, Any]] = self._usage.get_total_tokens()
        return total

    def _call(self, lm: dspy.BaseLM, trajectory: list[Turn], allowed: Allowed) -> dspy.Prediction:
        adapter = StepAdapter(self._schema, allowed.names, allowed.ground)
        outer: UsageTracker | None = dspy.settings.usage_tracker
        tracker = UsageTracker()
        try:
            with (
                child_span(self._lm.model, SpanType.CHAT_MODEL, {"steps_so_far": len(trajectory)}) as span,
                dspy.context(adapter=adapter, trace=None, usage_tracker=tracker),
            ):
                prediction = self._predict(lm=lm, **self._inputs, trajectory=list(trajectory))
                if span is not None:
                    span.set_outputs({"thought": prediction.get("thought"), **prediction.tool_call.model_dump()})
                return prediction
        finally:
            for target in (self._usage, outer):
                if target is not None:
                    for model, entries in tracker.usage_data.items():
                        target.usage_data[model].extend(entries)


def _told(step: StepCall | None) -> dict[str, Any]:
    if step is None:
        return {}
    thought = {} if step.thought is None else {"thought": step.thought}
    return {**thought, "tool_call": step.call.model_dump(mode="json")}


def _calls(prediction: dspy.Prediction) -> tuple[ToolCallArgs, ...]:
    return (prediction.tool_call, *(prediction.get("parallel_calls") or ()))
