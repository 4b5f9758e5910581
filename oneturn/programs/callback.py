"""One run of a module, told through DSPy's callbacks: its tool calls, its thoughts, its answer, its LM calls."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import dspy
from dspy.adapters.utils import serialize_for_json
from dspy.utils.callback import BaseCallback
from mlflow.entities import LiveSpan, SpanType

from oneturn.core.background import ConsumerGone
from oneturn.core.run_context import RunContext, current_run
from oneturn.core.steps import Item, Thought, ToolCall, ToolProgress, ToolResult, Working
from oneturn.core.tracing import child_span
from oneturn.core.usage import RunUsage
from oneturn.programs.predictor import PredictorCall, StreamedFields, TappingAdapter
from oneturn.programs.react.module import ReAct
from oneturn.programs.signature import SUBMIT
from oneturn.programs.stream_parsers import AnswerPiece, EndingCall
from oneturn.tools.errors import to_lm_error
from oneturn.tools.registry import FINISH, failed, succeeded

# Kept in DSPy's settings, which dspy.Parallel hands to its threads; they don't get the context.
_INSIDE_TOOL = "oneturn_inside_tool"
_SPAN = "oneturn_span"
_RUN = "oneturn_run"
_THOUGHTS = ("reasoning", "next_thought", "thought")


@dataclass(frozen=True)
class LMCall:
    """An LM is asked."""


RunEvent = Thought | ToolCall | ToolProgress | ToolResult | AnswerPiece | LMCall | Working | None
"""What a run tells; ``None`` is nothing to show, told only to find out whether anybody still listens."""


@dataclass
class _Open:
    """What was begun and hasn't ended: its contexts, its span, and what it is."""

    contexts: ExitStack
    span: LiveSpan | None = None
    tool_call: ToolCall | None = None
    predictor_call: PredictorCall | None = None


class RunCallback(BaseCallback):
    """Watches one run; its methods are called in the threads of the run.

    What happens inside a tool is the tool's own, and so is a run inside the run: it is counted, and isn't told.

    Args:
        tell: takes what happens; fails once nobody listens, which ends the run.
        signature: the program's signature.
        answer_field: its output field that is the answer, if there is one.
        usage: what the run has cost so far.
        control: says when the run has to stop.
        span: the span to open others below, if there are to be any.
    """

    def __init__(
        self,
        tell: Callable[[RunEvent], None],
        signature: type[dspy.Signature],
        answer_field: str | None,
        usage: RunUsage,
        control: RunContext,
        span: LiveSpan | None,
    ):
        self._tell = tell
        self._answer_field = answer_field
        self._thoughts = [name for name in _THOUGHTS if name not in signature.output_fields]
        self._usage = usage
        self._control = control
        self._span = span
        self._replies = itertools.count(1)
        self._open: dict[str, _Open] = {}

    def own_run(self) -> dict[str, Any]:
        """DSPy's settings in which what happens is this run's, and not that of one around it."""
        return {_RUN: self, _INSIDE_TOOL: False, _SPAN: None}

    def on_module_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """A predictor's LM is tapped, by way of its adapter."""
        if not isinstance(instance, dspy.Predict) or not self._is_own():
            return
        call = PredictorCall(self._tell, self._replies, self._told_fields(instance))
        adapter = TappingAdapter(dspy.settings.adapter or dspy.ChatAdapter(), call)
        opened = _Open(ExitStack(), predictor_call=call)
        opened.contexts.enter_context(dspy.context(adapter=adapter))
        self._open[call_id] = opened

    def on_module_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """A predictor's thought is told, if it hasn't been; the whole run's cost goes into its prediction."""
        opened = self._close(call_id, exception)
        if opened is not None and opened.predictor_call is not None and isinstance(outputs, Mapping | dspy.Prediction):
            self._tell_at_end(opened.predictor_call.thought_in(outputs))
        outermost = self._is_own() and not dspy.settings.caller_modules
        if dspy.settings.track_usage and outermost and isinstance(outputs, dspy.Prediction):
            outputs.set_lm_usage(self._usage.get_total_tokens())

    def on_adapter_format_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """The adapter that writes a prompt says how the reply will be written."""
        adapter = dspy.settings.adapter
        if isinstance(adapter, TappingAdapter):
            adapter.call.format = instance

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """An LM call is counted."""
        self._tell(LMCall())
        if not self._is_own():
            return
        asked = inputs.get("messages") or inputs.get("prompt")
        self._begin(call_id, instance.model, SpanType.CHAT_MODEL, {"messages": asked})

    def on_lm_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """Its span gets what the LM said."""
        self._close(call_id, exception, outputs)

    def on_tool_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """A tool call of the user's is told; not what ends a loop, nor what a tool calls itself."""
        if _ends_loop(instance):
            return
        if not self._is_own():
            self._tell(None)
            return
        args = {name: serialize_for_json(value) for name, value in inputs["kwargs"].items()}
        call = ToolCall(f"call_{call_id[:24]}", str(instance.name), args)
        shown = not dspy.settings.get(_INSIDE_TOOL)
        self._tell(call if shown else None)
        opened = self._begin(call_id, call.name, SpanType.TOOL, args)
        if shown:
            opened.tool_call = call
            opened.contexts.enter_context(self._tool_control(call).active())
        opened.contexts.enter_context(dspy.context(**{_INSIDE_TOOL: True, _SPAN: opened.span}))

    def on_tool_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """Its result is told, a failure in one short line."""
        opened = self._close(call_id, exception, outputs)
        if opened is None or opened.tool_call is None:
            return
        if exception is None:
            self._tell_at_end(succeeded(opened.tool_call, outputs))
        elif isinstance(exception, Exception):
            self._tell_at_end(failed(opened.tool_call, to_lm_error(exception)))

    def _is_own(self) -> bool:
        return dspy.settings.get(_RUN) is self

    def _tool_control(self, call: ToolCall) -> RunContext:
        """What a tool finds with ``oneturn.cancelled`` and ``oneturn.progress``."""

        def report(message: str, fraction: float | None, item: Item | None = None) -> None:
            self._tell(ToolProgress(call.call_id, call.name, message, fraction, item))

        parent = current_run() if _inside_react() else self._control  # its tools have controls of their own
        return RunContext(parent=parent, on_progress=report)

    def _told_fields(self, predictor: dspy.Predict) -> StreamedFields:
        """What a predictor's replies tell: nothing inside a tool."""
        if dspy.settings.get(_INSIDE_TOOL):
            return StreamedFields()
        outputs = predictor.signature.output_fields
        thought = next((name for name in self._thoughts if name in outputs), None)
        if self._answer_field in outputs:
            return StreamedFields(self._answer_field, thought)
        ending = _ending_call(_caller(), self._answer_field)
        return StreamedFields(self._answer_field if ending else None, thought, ending)

    def _begin(self, call_id: str, name: str, span_type: str, inputs: Mapping[str, Any]) -> _Open:
        opened = self._open[call_id] = _Open(ExitStack())
        if self._span is not None and not _inside_react():
            parent = dspy.settings.get(_SPAN) or self._span
            opened.span = opened.contexts.enter_context(child_span(name, span_type, inputs, parent))
        return opened

    def _close(self, call_id: str, exception: BaseException | None, outputs: Any = None) -> _Open | None:
        opened = self._open.pop(call_id, None)
        if opened is None:
            return None
        try:
            if opened.span is not None and exception is None:
                opened.span.set_outputs(outputs)
        finally:
            opened.contexts.__exit__(type(exception) if exception else None, exception, None)
        return opened

    def _tell_at_end(self, happening: RunEvent) -> None:
        """Tell what has ended. If nobody listens, the next beginning fails: other callbacks must see this end."""
        try:
            if happening is not None:
                self._tell(happening)
        except ConsumerGone:
            return


def inside_another_run() -> dict[str, Any]:
    """DSPy's settings in which what happens isn't told by the runs around it, which count its LM calls."""
    return {_RUN: None, "caller_modules": []}


def _caller() -> dspy.Module | None:
    """The module that is running, in this thread."""
    return next(reversed(dspy.settings.caller_modules or []), None)


def _ends_loop(tool: dspy.Tool) -> bool:
    """Whether this is the tool with which ``dspy.ReAct`` or ``dspy.ReActV2`` ends its loop."""
    caller = _caller()
    if isinstance(caller, dspy.ReAct):
        return bool(tool.name == "finish")
    return isinstance(caller, dspy.ReActV2) and tool.name == SUBMIT


def _ending_call(caller: dspy.Module | None, answer_field: str | None) -> EndingCall | None:
    """The call with which a loop gives the answer, where its LM writes it as an argument."""
    if answer_field is None or not isinstance(caller, dspy.ReActV2 | ReAct):
        return None
    if answer_field not in caller.signature.output_fields:
        return None
    if isinstance(caller, ReAct):
        return EndingCall(FINISH, answer_field, "tool_call")
    return EndingCall(SUBMIT, answer_field, "tool_calls")


def _inside_react() -> bool:
    """Whether a ``oneturn.ReAct`` is running, which opens its own spans."""
    return any(isinstance(module, ReAct) for module in dspy.settings.caller_modules or [])
