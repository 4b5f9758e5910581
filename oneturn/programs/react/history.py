"""Earlier exchanges of a ``dspy.History``, in any of the forms that DSPy's programs write."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any, get_args

import dspy

from oneturn.core._dspy import to_content_parts
from oneturn.core.serialization import jsonable
from oneturn.programs.react.reply_parser import parse_object
from oneturn.programs.react.trajectory import ToolCallArgs, Turn
from oneturn.tools.registry import FINISH, render_result

_MEDIA_PARTS = {"image_url": "image", "input_audio": "audio", "file": "file"}
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


def is_chat_message(exchange: Exchange, fields: Container[str]) -> bool:
    """Return whether an exchange is a message of a chat, which has a ``role`` that is none of the program's fields."""
    has_role = isinstance(exchange.get("role"), str) and "role" not in fields
    return has_role and ("content" in exchange or "tool_calls" in exchange)


def chat_entries(number: int, history: Sequence[Exchange]) -> Iterator[dict[str, Any] | list[Turn]]:
    """Yield a message of a chat as a message with text or content parts, or its tool calls as turns.

    Keys such as ``name`` are ignored. A message of the role ``system`` or ``developer`` has the role ``system``.

    Args:
        number: the message's position.
        history: all messages, as OpenAI writes them; the results of the calls come after them.
    """
    message, earlier, later = history[number], history[:number], history[number + 1 :]
    role, content = message["role"], _content(message.get("content") or message.get("refusal"))
    if made := _made_calls(message):
        yield _turns(made, _text(content), later)
    elif role == "tool":
        ids = {call.get("id") for each in earlier for call in _made_calls(each)}
        if message.get("tool_call_id") not in ids:
            yield {"role": "user", "content": f"Result: {_text(content)}"}
    elif role in ("system", "developer"):
        yield {"role": "system", "content": _text(content)}
    elif content:
        is_reply = role in ("assistant", "model")
        yield {"role": "assistant", "content": _text(content)} if is_reply else {"role": "user", "content": content}


def _made_calls(message: Exchange) -> list[Exchange]:
    made = message.get("tool_calls")
    calls = made if isinstance(made, list) else []
    return [call for call in calls if isinstance(call, Mapping) and isinstance(call.get("function"), Mapping)]


def _content(content: Any) -> str | list[dict[str, Any]]:
    """Return the content of a message as text, or as OpenAI's content parts if it has images or files."""
    parts: list[dict[str, Any]] = []
    for part in content if isinstance(content, list) else [] if content is None else [content]:
        if isinstance(part, Mapping) and isinstance(part.get("text"), str):
            parts.append({"type": "text", "text": part["text"]})
        elif isinstance(part, Mapping) and part.get("type") == "input_image":
            parts.append({"type": "image_url", "image_url": {"url": part.get("image_url")}})
        elif isinstance(part, Mapping) and part.get("type") in _MEDIA_PARTS:
            parts.append(dict(part))
        else:
            text = str(part.model_dump()) if isinstance(part, dspy.Type) else render_result(part)
            converted = to_content_parts({"role": "user", "content": text})["content"]
            parts += [{"type": "text", "text": converted}] if isinstance(converted, str) else converted
    if any(part["type"] != "text" for part in parts):
        return parts
    return "\n".join(part["text"] for part in parts)


def _text(content: str | list[dict[str, Any]]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] if part["type"] == "text" else f"[{_MEDIA_PARTS[part['type']]}]" for part in content)


def _turns(made: Sequence[Exchange], thought: str, later: Sequence[Exchange]) -> list[Turn]:
    results: dict[Any, str] = {}
    for each in later:
        if each.get("role") == "tool":
            results.setdefault(each.get("tool_call_id"), _text(_content(each.get("content"))))
    turns: list[Turn] = []
    for call in made:
        args = call["function"].get("arguments") or {}
        args = parse_object(args) or {} if isinstance(args, str) else dict(args)
        turn = Turn(
            thought=None if turns else thought,
            tool_call=ToolCallArgs(name=call["function"]["name"], args=args),
            observation=results.get(call.get("id")) or "(no result)",
        )
        turns.append(turn.in_step(bool(turns), ""))
    return turns


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
