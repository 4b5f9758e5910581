"""Convert the items of an agent's own tool calls in a stream of events.

A writer of events has MLflow's items: a ``function_call`` and a ``function_call_output``. Standard clients take a
``function_call`` for a call that they have to make. An ``mcp_call`` is one item with the call and its output, which
they only show.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from oneturn.responses.call_items import output_text

Event = dict[str, Any]
Item = Mapping[str, Any]

ToolItemForm = Literal["mcp_call", "function_call", "none"]
"""How the agent's own tool calls appear: one item each, a call and its output, or not at all."""

SERVER_LABEL = "oneturn"
"""The ``server_label`` of the agent's own tools."""

ENDINGS = ("response.completed", "response.incomplete", "response.failed")
"""The terminal events of a stream."""

# What an agent's own call has that a program leaves open.
_ABANDONED = {"output": "Error: the run ended before this tool did.", "is_error": True}
_ARGUMENTS = "response.function_call_arguments."
_CALLS = ("function_call", "function_call_output")


class ToolItems:
    """Converts the tool items of one stream, and renumbers ``output_index``.

    A call of a tool that isn't among ``own_tools`` is held back until the next event shows whose it is: a stream that
    ends with open calls leaves them to the client, as ``function_call`` items. A call of one of the ``client_tools`` is
    the client's.

    Calls that are hidden (``none``) appear after all if the run waits for an approval or for the client, before the
    approval request or the client's call: the client has to send them back, in order. So the reasoning after a hidden
    call is held back until the next item.

    Args:
        form: the form to convert to.
        revealed_form: the form of hidden calls before an approval request or a call of the client.
        own_tools: names of tools that the agent runs itself.
        client_tools: names of tools that the client has offered.
    """

    def __init__(
        self,
        form: ToolItemForm,
        revealed_form: Literal["mcp_call", "function_call"] = "function_call",
        own_tools: Container[str] = (),
        client_tools: Container[str] = (),
    ):
        self._form = form
        self._revealed_form = revealed_form
        self._own_tools = own_tools
        self._client_tools = client_tools
        self._client_calls: set[Any] = set()  # ids of their items
        self._indexes: dict[Any, int] = {}  # by output_index in the stream that is read
        self._next_index = 0
        self._calls: dict[str, Item] = {}  # calls that were begun as mcp_call items, by call_id
        self._ended: set[str] = set()
        self._held: list[Event] = []  # events of calls that may be the client's
        self._hidden: list[Event] = []  # events of hidden calls, and of the reasoning after them

    def read(self, event: Event) -> Iterator[Event]:
        """Yield the events that ``event`` is converted to."""
        kind = str(event["type"])
        item = event.get("item") or {}
        if self._is_clients(item):
            self._client_calls.add(item.get("id"))
        if self._form == "none" and kind == "response.output_item.added" and self._waits_for(item):
            self._form = self._revealed_form
            hidden, self._hidden = self._hidden, []
            for earlier in hidden:
                yield from self.read(earlier)
        if self._form == "none":
            if self._is_of_call(event) or (self._hidden and _is_reasoning(event)):
                self._hidden.append(event)
                return
            if kind != "response.in_progress":  # the next item, or the end
                yield from (self._renumbered(held) for held in self._hidden if _is_reasoning(held))
                self._hidden = [held for held in self._hidden if not _is_reasoning(held)]
        if self._form == "mcp_call" and event.get("item_id", item.get("id")) not in self._client_calls:
            yield from self._read_mcp(kind, event)
        else:
            yield self._renumbered(event)

    def output(self, items: Iterable[Item], ended: bool = True) -> list[Item]:
        """Convert the ``output`` of a response.

        Args:
            items: the items.
            ended: whether the response has ended; if not, calls without an output are left out.
        """
        items = list(items)
        if self._form == "none" and any(map(self._waits_for, items)):
            self._form = self._revealed_form
        if self._form == "none":
            items = [item for item in items if item.get("type") not in _CALLS]
        elif self._form == "mcp_call":
            items = list(self._with_mcp_calls(items, ended))
        return items

    def _with_mcp_calls(self, items: Sequence[Item], ended: bool) -> Iterator[Item]:
        own = (item for item in items if item.get("type") == "function_call" and not self._is_clients(item))
        calls = {item["call_id"] for item in own}
        outputs = {item["call_id"]: item for item in items if item.get("type") == "function_call_output"}
        others = [place for place, item in enumerate(items) if item.get("type") != "function_call"]
        last_other = others[-1] if others else -1  # a call before it isn't left to the client
        for place, item in enumerate(items):
            if item.get("type") == "function_call":
                if item["call_id"] in outputs and item["call_id"] in calls:
                    yield mcp_call(item, outputs[item["call_id"]])
                elif ended or item["call_id"] in outputs:
                    is_own = self._is_own_call(item) or (place < last_other and not self._is_clients(item))
                    yield mcp_call(item, _ABANDONED) if is_own else item
            elif item.get("type") != "function_call_output" or item["call_id"] not in calls:
                yield item

    def _waits_for(self, item: Item) -> bool:
        """Whether an item ends the turn, so that the client has to send the items back."""
        return item.get("type") == "mcp_approval_request" or self._is_clients(item)

    def _is_clients(self, item: Item) -> bool:
        return item.get("type") == "function_call" and item.get("name") in self._client_tools

    def _is_own_call(self, item: Item) -> bool:
        return not self._is_clients(item) and self._is_agents(item)

    def _is_agents(self, item: Item) -> bool:
        return item["name"] in self._own_tools or item["call_id"] in self._calls

    def _is_of_call(self, event: Event) -> bool:
        return str(event["type"]).startswith(_ARGUMENTS) or _type(event) in _CALLS

    def _read_mcp(self, kind: str, event: Event) -> Iterator[Event]:
        if self._held and not self._may_be_held(kind, event):
            held, self._held = self._held, []
            for earlier in held:
                yield from [self._renumbered(earlier)] if kind in ENDINGS else self._convert(earlier)
        if kind in ENDINGS:
            for call_id in [call_id for call_id in self._calls if call_id not in self._ended]:
                yield from self._end(call_id, _ABANDONED)
        if self._may_be_held(kind, event) and (self._held or not self._is_own(event)):
            self._held.append(event)
            return
        yield from self._convert(event)

    def _may_be_held(self, kind: str, event: Event) -> bool:
        return kind.startswith(_ARGUMENTS) or _type(event) == "function_call"

    def _is_own(self, event: Event) -> bool:
        item = event.get("item")
        if item:
            return self._is_own_call(item)
        return event.get("item_id") in {call.get("id") for call in self._calls.values()}

    def _convert(self, event: Event) -> Iterator[Event]:
        kind, item = str(event["type"]), event.get("item") or {}
        if kind.startswith(_ARGUMENTS):
            yield self._arguments(kind, event)
        elif item.get("type") == "function_call":
            if item["call_id"] not in self._calls:
                yield from self._begin(event, item)
                if kind.endswith(".done"):  # an agent that sends finished items only
                    yield from self._all_arguments(event, item)
            self._calls[item["call_id"]] = {**self._calls[item["call_id"]], **item}
        elif item.get("type") == "function_call_output" and item["call_id"] in self._calls:
            if kind.endswith(".done"):
                yield from self._end(item["call_id"], item)
        else:
            yield self._renumbered(self._with_item_id(event))

    def _with_item_id(self, event: Event) -> Event:
        """The progress of a tool with the id of its ``mcp_call`` item, which has no ``call_id``."""
        progress = event.get("progress")
        if not isinstance(progress, Mapping) or progress.get("call_id") not in self._calls:
            return event
        return {**event, "progress": {**progress, "item_id": mcp_id(self._calls[progress["call_id"]])}}

    def _begin(self, event: Event, item: Item) -> Iterator[Event]:
        self._calls[item["call_id"]] = {**item, "output_index": self._index(event)}
        begun = {**mcp_call(item, None), "arguments": "", "status": "in_progress"}
        yield {**event, "type": "response.output_item.added", "output_index": self._index(event), "item": begun}
        yield {"type": "response.mcp_call.in_progress", "item_id": begun["id"], "output_index": self._index(event)}

    def _all_arguments(self, event: Event, item: Item) -> Iterator[Event]:
        position = {"item_id": mcp_id(item), "output_index": self._index(event)}
        arguments = item.get("arguments") or ""
        yield {"type": "response.mcp_call_arguments.delta", **position, "delta": arguments}
        yield {"type": "response.mcp_call_arguments.done", **position, "arguments": arguments}

    def _arguments(self, kind: str, event: Event) -> Event:
        item_id = mcp_id({"id": event.get("item_id")})
        fields = {name: value for name, value in event.items() if name != "name"}
        return {**fields, "type": kind.replace("function_call", "mcp_call"), **self._position(event, item_id)}

    def _end(self, call_id: str, output: Item) -> Iterator[Event]:
        self._ended.add(call_id)
        item, index = mcp_call(self._calls[call_id], output), self._calls[call_id]["output_index"]
        kind = "failed" if item["status"] == "failed" else "completed"
        yield {"type": f"response.mcp_call.{kind}", "item_id": item["id"], "output_index": index}
        yield {"type": "response.output_item.done", "output_index": index, "item": item}

    def _position(self, event: Event, item_id: str) -> dict[str, Any]:
        return {"item_id": item_id, "output_index": self._index(event)}

    def _renumbered(self, event: Event) -> Event:
        return {**event, "output_index": self._index(event)} if "output_index" in event else event

    def _index(self, event: Event) -> int:
        key = event.get("output_index", (event.get("item") or {}).get("id"))
        if key not in self._indexes:
            self._indexes[key] = self._next_index
            self._next_index += 1
        return self._indexes[key]


def tool_error(text: str) -> dict[str, Any]:
    """Return the ``error`` of an ``mcp_call`` item, as OpenAI's API has it (a text until openai 2)."""
    return {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": text}]}


def mcp_call(call: Item, output: Item | None) -> dict[str, Any]:
    """Return a ``function_call`` and its ``function_call_output`` as one ``mcp_call`` item.

    Args:
        call: the call.
        output: its output; ``None`` if there is none yet.
    """
    failed = output is not None and bool(output.get("is_error"))
    text = None if output is None or output.get("output") is None else output_text(output["output"])
    item = {
        "type": "mcp_call",
        "id": mcp_id(call),
        "server_label": SERVER_LABEL,
        "name": call.get("name"),
        "arguments": call.get("arguments") or "",
        "approval_request_id": None,
        "output": None if failed else text,
        "error": tool_error(str(text or "")) if failed else None,
        "status": "failed" if failed else "completed",
    }
    if output is not None and output.get("sources"):
        item["sources"] = output["sources"]
    return item


def mcp_id(call: Item) -> str:
    """Return the id of the ``mcp_call`` item of a ``function_call`` item."""
    id = str(call.get("id") or call.get("call_id"))
    return "mcp_" + id.removeprefix("fc_")


def _is_reasoning(event: Event) -> bool:
    return str(event["type"]).startswith("response.reasoning") or _type(event) == "reasoning"


def _type(event: Event) -> Any:
    return (event.get("item") or {}).get("type")
