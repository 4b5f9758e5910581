"""Tool calls in both forms: ``mcp_call`` items, and pairs of ``function_call`` and ``function_call_output`` items.

OpenAI's clients run a ``function_call`` themselves and show an ``mcp_call``, which has the output in the same item.
MLflow's types know the pairs only. Both forms are read everywhere; what MLflow's types validate is converted first.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Any

from oneturn.core.serialization import jsonable
from oneturn.errors import RequestError

Event = Mapping[str, Any]
Item = Mapping[str, Any]

APPROVAL_RESPONSE = "mcp_approval_response"
"""The type of the item that answers an approval request."""

MCP_CALL = "mcp_call"
MLFLOW_CALLS = frozenset({"computer_call", "file_search_call", "web_search_call"})
"""The types of other providers' calls that MLflow's types have."""

_READ = (
    *("message", "reasoning", "function_call", "function_call_output", MCP_CALL),
    *("mcp_approval_request", APPROVAL_RESPONSE),
)
_WITHOUT_RESULT = frozenset({"mcp_list_tools", "web_search_call"})  # nothing in them is lost to the run
_CALL_ENDINGS = ("_call", "_output", "_list_tools")
_UNREADABLE = f"which this agent can't read; leave it out, or send one of {', '.join(_READ)}"
_COMPACTION = "which only its provider can read; send the items of the earlier turns instead"
_ERROR = "Error: "
_DONE = "response.output_item.done"


def to_mlflow_items(items: Iterable[Any]) -> list[Any]:
    """Return input items in the types that MLflow validates.

    An ``mcp_call`` becomes a ``function_call`` and, if it has ended, its ``function_call_output``. A ``reasoning`` item
    gets the ``id`` and the ``summary`` that clients may leave out. A user message without content after an approval
    response, with which Databricks' chat template once sent it, is left out. Other items are unchanged.
    """
    converted: list[Any] = []
    for number, item in enumerate(items):
        kind = _kind(item)
        if kind == MCP_CALL:
            converted += _pair(item, number)
        elif kind == "reasoning":
            id, summary = item.get("id") or f"rs_{number}", item.get("summary") or []
            converted.append({**item, "id": id, "summary": summary})
        else:
            converted.append(item)
    if [_kind(item) for item in converted[-2:]] == [APPROVAL_RESPONSE, "message"] and _is_empty(converted[-1]):
        converted.pop()
    return converted


def without_foreign_calls(items: Sequence[Any], also: Container[str] = ()) -> list[Any]:
    """Return input items without the calls that the tools of other providers made in finished turns.

    Such as ``code_interpreter_call`` or ``custom_tool_call_output``: as the agent's own calls, they aren't part of the
    conversation that follows. Those without a result, such as ``web_search_call``, are left out of the last turn too.

    Args:
        items: the items.
        also: further types that the agent reads.

    Raises:
        RequestError: the last turn has such an item with a result, or an item is of an unknown type; the message says
            where.
    """
    messages = [number for number, item in enumerate(items) if _role(item) in ("user", "assistant")]
    last = messages[-1] if messages else -1
    kept: list[Any] = []
    for number, item in enumerate(items):
        kind = _kind(item)
        if not isinstance(kind, str) or kind in _READ or kind in also or _role(item) is not None:
            kept.append(item)
        elif not kind.endswith(_CALL_ENDINGS) or (number > last and kind not in _WITHOUT_RESULT):
            reason = _COMPACTION if kind == "compaction" else _UNREADABLE
            raise RequestError(f"input.{number} is of type {kind!r:.80}, {reason}.", "input")
    return kept


def output_of(call: Item) -> str | None:
    """Return the output of an ``mcp_call``, an error with ``Error:`` before it; ``None`` if the call hasn't ended."""
    error, output = _error_text(call.get("error")), call.get("output")
    if error:
        return error if error.startswith(_ERROR) else f"{_ERROR}{error}"
    if output is not None:
        return output_text(output)
    return {"completed": "", "failed": f"{_ERROR}the tool failed"}.get(str(call.get("status")))


def output_text(output: Any) -> str:
    """Return the text of a tool's output; in a list of parts, images and files are named."""
    if isinstance(output, list | tuple):
        return "\n".join(map(part_text, output))
    return part_text(output)


def part_text(part: Any) -> str:
    """Return the text of one part of an output; that of an image or a file is its label, such as ``[image]``."""
    if isinstance(part, str):
        return part
    fields = part if isinstance(part, Mapping) else {}
    if isinstance(fields.get("text"), str):
        return str(fields["text"])
    kind = str(fields.get("type"))
    if kind.startswith("input_"):
        label, name = kind.removeprefix("input_"), fields.get("filename")
        return f"[{label}: {name}]" if name else f"[{label}]"
    return json.dumps(jsonable(part), ensure_ascii=False)


def _error_text(error: Any) -> str:
    """The text of an error: a text, OpenAI's object with ``content`` or ``message``, or any JSON."""
    if not isinstance(error, Mapping):
        return str(error or "")
    content = error.get("content")
    parts = [part.get("text") for part in content if isinstance(part, Mapping)] if isinstance(content, list) else []
    texts = [part for part in parts if isinstance(part, str)]
    return "\n".join(texts) or str(error.get("message") or json.dumps(jsonable(error), ensure_ascii=False))


def _pair(call: Item, number: int = 0) -> list[dict[str, Any]]:
    call_id = call.get("id") or f"{MCP_CALL}_{number}"
    fields = {"id": call_id, "call_id": call_id, "name": call.get("name"), "arguments": call.get("arguments")}
    function_call = {"type": "function_call", **fields, "status": "completed"}
    output = output_of(call)
    if output is None:
        return [function_call]
    answer = {"type": "function_call_output", "id": f"{call_id}_output", "call_id": call_id, "output": output}
    return [function_call, {**answer, "sources": call["sources"]} if call.get("sources") else answer]


def _kind(item: Any) -> Any:
    return item.get("type", "message") if isinstance(item, Mapping) else None


def _role(item: Any) -> Any:
    return item.get("role") if isinstance(item, Mapping) else None


def _is_empty(message: Item) -> bool:
    return message.get("role") == "user" and not message.get("content")


class FunctionCallEvents:
    """Converts the events of a stream so that each ``mcp_call`` is a pair: the call is done before its output is there.

    For readers that show a call when it begins. Events of other items pass unchanged.
    """

    def __init__(self) -> None:
        self._added: dict[Any, Item] = {}
        self._begun: set[Any] = set()

    def read(self, event: Event) -> Iterator[Event]:
        """Yield the events that ``event`` stands for; none if it adds nothing."""
        kind, item = str(event.get("type")), event.get("item")
        if kind.startswith("response.mcp_call"):
            if kind == "response.mcp_call_arguments.done" and event.get("item_id") in self._added:
                call = {**self._added[event.get("item_id")], "arguments": event.get("arguments")}
                self._begun.add(event.get("item_id"))
                yield {"type": _DONE, "output_index": event.get("output_index"), "item": _pair(call)[0]}
        elif not isinstance(item, Mapping) or item.get("type") != MCP_CALL:
            yield event
        elif kind == _DONE:
            function_call, *outputs = _pair(item)
            begun = item.get("id") in self._begun
            yield from ({**event, "item": each} for each in (outputs if begun else (function_call, *outputs)))
        else:
            self._added[item.get("id")] = item
