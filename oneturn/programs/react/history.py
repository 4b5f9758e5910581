"""Earlier exchanges of a ``dspy.History``, in any of the forms that DSPy's programs write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

import dspy

from oneturn.core.serialization import jsonable
from oneturn.programs.react.trajectory import ToolCallArgs, Turn
from oneturn.tools.registry import FINISH, render_result

_ENDING = (FINISH, "submit")  # the call that ends a run of ReAct, and of dspy.ReActV2

Exchange = Mapping[str, Any]


def is_history(annotation: Any) -> bool:
    """Return whether a field's type is ``dspy.History``, or an optional one."""
    return annotation is dspy.History or dspy.History in get_args(annotation)


def exchanges(signature: type[dspy.Signature], run: Mapping[str, Any]) -> list[Exchange]:
    """Return the earlier exchanges: of a ``dspy.History``, or of its JSON form in a saved demo or a dataset."""
    for name, field in signature.input_fields.items():
        if is_history(field.annotation):
            history = run.get(name) or ()
            messages = history.get("messages", ()) if isinstance(history, Mapping) else history
            return list(getattr(messages, "messages", messages))
    return []


def chat_message(exchange: Exchange) -> dict[str, Any] | None:
    """Return an exchange that is a message of a chat, ``{"role": …, "content": …}``; ``None`` if it is none."""
    if set(exchange) == {"role", "content"} and exchange["role"] in ("user", "assistant"):
        return {"role": exchange["role"], "content": str(exchange["content"])}
    return None


def tool_turns(exchange: Exchange) -> list[Turn]:
    """Return the tool calls of an exchange with their results, as ``dspy.ReActV2`` records them."""
    turns: list[Turn] = []
    for call, result in _calls(exchange):
        if call.name in _ENDING:
            continue
        thought = None if turns else str(exchange.get("next_thought") or "")
        turn = Turn(thought=thought, tool_call=call, observation=render_result(jsonable(result)))
        turns.append(turn.in_step(bool(turns), ""))
    return turns


def past_outputs(exchange: Exchange, signature: type[dspy.Signature], outputs: tuple[str, ...]) -> dict[str, Any]:
    """Return the outputs of an exchange; those of the call that ended its run if they aren't fields of their own.

    Args:
        exchange: the exchange.
        signature: the signature with the inputs.
        outputs: the names of the program's outputs. An exchange with none of them has outputs of another program.
    """
    given = {name: value for name, value in exchange.items() if name not in signature.input_fields}
    calls = _calls(exchange)
    if not any(name in given for name in outputs):
        given = next((call.args for call, _ in calls if call.name in _ENDING), {} if calls else given)
    if any(name in given for name in outputs):  # a prediction also has a trajectory or reasoning
        given = {name: given[name] for name in outputs if name in given}
    return given


def _calls(exchange: Exchange) -> list[tuple[ToolCallArgs, Any]]:
    """Return the calls of an exchange with their results: of a ``dspy.ToolCalls``, or of its JSON form."""
    return [pair for value in exchange.values() for pair in _calls_in(value)]


def _calls_in(value: Any) -> Iterator[tuple[ToolCallArgs, Any]]:
    data = value.model_dump() if isinstance(value, dspy.ToolCalls) else value
    if not isinstance(data, Mapping) or not isinstance(data.get("tool_calls"), list):
        return
    results = (data.get("tool_call_results") or {}).get("tool_call_results") or []
    for number, call in enumerate(data["tool_calls"]):
        result = results[number].get("value") if number < len(results) else None
        yield ToolCallArgs(name=call["name"], args=jsonable(dict(call.get("args") or {}))), result
