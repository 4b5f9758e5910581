"""Observe a module's run through DSPy's callbacks: tool calls, thoughts, the answer and LM calls."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import dspy
import mlflow
from dspy.utils.callback import BaseCallback
from mlflow.entities import LiveSpan, SpanType

from oneturn.core.background import ConsumerGone
from oneturn.core.run_context import LMSettings, RunContext, current_run
from oneturn.core.serialization import jsonable
from oneturn.core.steps import Item, Thought, ToolCall, ToolProgress, ToolResult, Working
from oneturn.core.tracing import child_span, set_usage
from oneturn.core.usage import CallTracker, track_usage
from oneturn.programs.predictor import PredictorCall, StreamedFields, TappingAdapter
from oneturn.programs.react.module import ReAct
from oneturn.programs.signature import SUBMIT, ending_tool
from oneturn.programs.stream_parsers import AnswerPiece, EndingCall
from oneturn.tools.errors import to_lm_error
from oneturn.tools.registry import FINISH, failed, succeeded

# Keys in DSPy's settings: dspy.Parallel copies the settings to its threads, but not the context variables.
_INSIDE_TOOL = "oneturn_inside_tool"
_SPAN = "oneturn_span"
_RUN = "oneturn_run"
_THOUGHTS = ("reasoning", "next_thought", "thought")


RunEvent = Thought | ToolCall | ToolProgress | ToolResult | AnswerPiece | Working | None
"""An event of a run. ``None`` has no content: emitting it only checks that the consumer is still there."""


@dataclass
class _OpenCall:
    """A call that has started and not ended: its contexts, its span, its tool or predictor call, and its usage."""

    contexts: ExitStack
    span: LiveSpan | None = None
    tool_call: ToolCall | None = None
    predictor_call: PredictorCall | None = None
    tracker: CallTracker | None = None


class RunCallback(BaseCallback):
    """Emits the events of one run; DSPy calls its methods in the threads of the run.

    Calls inside a tool, and runs inside the run, are counted but not emitted.

    Args:
        emit: receives the events; raises once the consumer is gone, which ends the run.
        signature: the program's signature.
        answer_field: the output field that holds the answer, if there is one.
        tracker: counts the LM calls of the run.
        context: the run's cancellation and deadline.
        span: the parent of the spans to create; ``None`` creates no spans.
        autologged: whether ``mlflow.dspy.autolog`` creates spans; those of predictors and of the run get their usage.
        lm_settings: the settings of LM calls that the request asks for.
        sole_writer: whether a single predictor or agent of the program writes the answer, once in a run.
    """

    def __init__(
        self,
        emit: Callable[[RunEvent], None],
        signature: type[dspy.Signature],
        answer_field: str | None,
        tracker: CallTracker,
        context: RunContext,
        span: LiveSpan | None,
        lm_settings: LMSettings,
        sole_writer: bool,
        autologged: bool = False,
    ):
        self._autologged = autologged
        self._lm_settings = lm_settings
        self._emit = emit
        self._answer_field = answer_field
        self._thoughts = [name for name in _THOUGHTS if name not in signature.output_fields]
        self._tracker = tracker
        self._context = context
        self._span = span
        self._sole_writer = sole_writer
        self._replies = itertools.count(1)
        self._open_calls: dict[str, _OpenCall] = {}

    def run_settings(self) -> dict[str, Any]:
        """Return the DSPy settings that assign the calls inside to this run, not to an outer one."""
        return {_RUN: self, _INSIDE_TOOL: False, _SPAN: None}

    def on_module_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Wrap the adapter of a predictor, to stream its LM's replies."""
        if not isinstance(instance, dspy.Predict) or not self._is_own():
            return
        call = PredictorCall(self._emit, self._replies, self._streamed_fields(instance), self._lm_config)
        adapter = TappingAdapter(dspy.settings.adapter or dspy.ChatAdapter(), call)
        opened = _OpenCall(ExitStack(), predictor_call=call)
        opened.contexts.enter_context(dspy.context(adapter=adapter))
        if self._autologged and not _inside_react():
            opened.tracker = CallTracker()
            opened.contexts.enter_context(track_usage(opened.tracker))
        self._open_calls[call_id] = opened

    def on_module_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """Emit a predictor's thought unless it was streamed; set the usage of the run on the outermost prediction.

        With autolog, that comes after the run: MLflow would copy it to the module's span, without the cached tokens.
        """
        opened = self._close(call_id, exception)
        if opened is not None and opened.predictor_call is not None and isinstance(outputs, Mapping | dspy.Prediction):
            self._emit_at_end(opened.predictor_call.thought_in(outputs))
        if not self._is_own() or dspy.settings.caller_modules:
            return
        if not self._autologged:
            self.set_run_usage(outputs)
        elif (span := mlflow.get_current_active_span()) is not None:
            set_usage(span, self._tracker.usage)

    def set_run_usage(self, outputs: Any) -> None:
        """Set the usage of the run on its prediction, as DSPy does."""
        if dspy.settings.track_usage and isinstance(outputs, dspy.Prediction):
            outputs.set_lm_usage(self._tracker.get_total_tokens())

    def on_adapter_format_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Record the adapter that writes the prompt: it determines the format of the reply."""
        adapter = dspy.settings.adapter
        if isinstance(adapter, TappingAdapter):
            adapter.call.format = instance

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Start the span of an LM call."""
        self._emit(None)
        if not self._is_own():
            return
        prompt = inputs.get("messages") or inputs.get("prompt")
        opened = self._begin(call_id, instance.model, SpanType.CHAT_MODEL, {"messages": prompt})
        if opened.span is not None:
            opened.tracker = CallTracker()
            opened.contexts.enter_context(track_usage(opened.tracker))

    def on_lm_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """Set the LM's reply on the span and end it."""
        self._close(call_id, exception, outputs)

    def on_tool_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Emit a call of a user's tool, except the call that ends a loop and calls made inside a tool."""
        if instance.name == ending_tool(_caller()):
            return
        if not self._is_own():
            self._emit(None)
            return
        args = {name: jsonable(value) for name, value in inputs["kwargs"].items()}
        call = ToolCall(f"call_{call_id[:24]}", str(instance.name), args)
        visible = not dspy.settings.get(_INSIDE_TOOL)
        self._emit(call if visible else None)
        opened = self._begin(call_id, call.name, SpanType.TOOL, args)
        if visible:
            opened.tool_call = call
            opened.contexts.enter_context(self._tool_context(call).active())
        opened.contexts.enter_context(dspy.context(**{_INSIDE_TOOL: True, _SPAN: opened.span}))

    def on_tool_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """Emit the tool's result; a failure as one short line."""
        opened = self._close(call_id, exception, outputs)
        if opened is None or opened.tool_call is None:
            return
        if exception is None:
            self._emit_at_end(succeeded(opened.tool_call, outputs))
        elif isinstance(exception, Exception):
            self._emit_at_end(failed(opened.tool_call, to_lm_error(exception)))

    def _is_own(self) -> bool:
        return dspy.settings.get(_RUN) is self

    def _tool_context(self, call: ToolCall) -> RunContext:
        """Return the context behind ``oneturn.cancelled`` and ``oneturn.progress`` inside the tool."""

        def report(message: str, fraction: float | None, item: Item | None = None) -> None:
            self._emit(ToolProgress(call.call_id, call.name, message, fraction, item))

        parent = current_run() if _inside_react() else self._context  # ReAct creates a context for each of its tools
        return RunContext(parent=parent, on_progress=report)

    def _streamed_fields(self, predictor: dspy.Predict) -> StreamedFields:
        """Return the fields to stream from a predictor's replies; none inside a tool."""
        if dspy.settings.get(_INSIDE_TOOL):
            return StreamedFields()
        outputs = predictor.signature.output_fields
        thought = next((name for name in self._thoughts if name in outputs), None)
        if self._answer_field in outputs:
            others = {name: field.annotation for name, field in outputs.items() if name != self._answer_field}
            return StreamedFields(self._answer_field, thought, others=others, final=self._sole_writer)
        caller = _caller()
        ending = _ending_call(caller, self._answer_field)
        if caller is None or ending is None:
            return StreamedFields(thought=thought)
        only_output = len(caller.signature.output_fields) == 1  # the call's other arguments aren't checked here
        return StreamedFields(self._answer_field, thought, ending, final=self._sole_writer and only_output)

    def _lm_config(self) -> dict[str, Any]:
        """Return the settings of the next LM call that the request asks for; none inside a tool."""
        if dspy.settings.get(_INSIDE_TOOL):
            return {}
        return self._lm_settings.config(self._tracker.usage.output_tokens)

    def _begin(self, call_id: str, name: str, span_type: str, inputs: Mapping[str, Any]) -> _OpenCall:
        opened = self._open_calls[call_id] = _OpenCall(ExitStack())
        if self._span is not None and not _inside_react():
            parent = dspy.settings.get(_SPAN) or self._span
            opened.span = opened.contexts.enter_context(child_span(name, span_type, inputs, parent))
        return opened

    def _close(self, call_id: str, exception: BaseException | None, outputs: Any = None) -> _OpenCall | None:
        opened = self._open_calls.pop(call_id, None)
        if opened is None:
            return None
        try:
            usage_span = opened.span or mlflow.get_current_active_span()  # autolog's, whose callback ends it next
            if usage_span is not None and opened.tracker is not None:
                set_usage(usage_span, opened.tracker.usage)
            if opened.span is not None and exception is None:
                opened.span.set_outputs(outputs)
        finally:
            opened.contexts.__exit__(type(exception) if exception else None, exception, None)
        return opened

    def _emit_at_end(self, event: RunEvent) -> None:
        """Emit an end event. Don't raise if the consumer is gone: other callbacks must see this end."""
        try:
            if event is not None:
                self._emit(event)
        except ConsumerGone:
            return


def inside_another_run() -> dict[str, Any]:
    """Return the DSPy settings for a nested run: outer runs count its LM calls but don't emit its events."""
    return {_RUN: None, "caller_modules": []}


def _caller() -> dspy.Module | None:
    """Return the module that is running in this thread."""
    return next(reversed(dspy.settings.caller_modules or []), None)


def _ending_call(caller: dspy.Module | None, answer_field: str | None) -> EndingCall | None:
    """Return the tool call that ends the caller's loop and has the answer as an argument; ``None`` if there is none."""
    if answer_field is None or not isinstance(caller, dspy.ReActV2 | ReAct):
        return None
    if answer_field not in caller.signature.output_fields:
        return None
    if isinstance(caller, ReAct):
        return EndingCall(FINISH, answer_field, "tool_call")
    return EndingCall(SUBMIT, answer_field, "tool_calls")


def _inside_react() -> bool:
    """Return whether a ``oneturn.ReAct`` is running; it creates its own spans."""
    return any(isinstance(module, ReAct) for module in dspy.settings.caller_modules or [])
