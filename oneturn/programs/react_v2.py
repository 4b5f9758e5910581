"""Earlier turns for ``dspy.ReActV2``, which takes a history that no signature declares, in a form of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dspy
from dspy.adapters.types.tool import ToolCallResults, ToolCalls

HISTORY = "history"
SUBMIT = "submit"
"""The tool that ends a ``dspy.ReActV2``: its arguments are the signature's output fields."""


def with_history_field(signature: type[dspy.Signature]) -> type[dspy.Signature]:
    """The signature with an optional ``history``, as ``dspy.ReActV2`` takes it."""
    field = dspy.InputField(default=dspy.History(messages=[]))
    with_field: type[dspy.Signature] = signature.append(HISTORY, field, type_=dspy.History)
    return with_field


def with_submitted_turns(signature: type[dspy.Signature], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs, with a history whose answers were submitted: ``dspy.ReActV2`` shows its LM calls, not outputs."""
    history = inputs.get(HISTORY)
    if history is None:
        return {**inputs, HISTORY: dspy.History(messages=[])}
    turns = [_submitted(signature, number, turn) for number, turn in enumerate(history.messages)]
    return {**inputs, HISTORY: dspy.History(messages=turns)}


def _submitted(signature: type[dspy.Signature], number: int, turn: Mapping[str, Any]) -> dict[str, Any]:
    outputs = {name: turn[name] for name in signature.output_fields if name in turn}
    if not outputs or "tool_calls" in turn:
        return dict(turn)
    calls = ToolCalls(tool_calls=[ToolCalls.ToolCall(id=f"turn_{number}", name=SUBMIT, args=outputs)])
    results = ToolCallResults.from_tool_calls_and_values(calls, [outputs], [False])
    return {**turn, "next_thought": "", "tool_calls": calls.model_copy(update={"tool_call_results": results})}
