"""The two dialects of the Responses protocol that a server speaks, each a translation of an agent's stream.

``mlflow`` has the items and events of MLflow's ``ResponsesAgent``. ``open_responses`` has those of the Open Responses
specification (openresponses.org, 2026-04-24): every field of the response resource, one ``mcp_call`` item per tool
call, and ``event:`` lines.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any, Literal

from oneturn.responses.item_events import ItemEvents, complete_item
from oneturn.responses.tool_items import ENDINGS, Event, ToolItemForm, ToolItems

DialectName = Literal["open_responses", "mlflow"]

# The fields of a response resource, with the values that apply unless the request says otherwise, without a store.
_RESOURCE: dict[str, Any] = {
    "object": "response",
    "completed_at": None,
    "incomplete_details": None,
    "previous_response_id": None,
    "instructions": None,
    "error": None,
    "tools": [],
    "tool_choice": "auto",
    "truncation": "disabled",
    "parallel_tool_calls": True,
    "text": {"format": {"type": "text"}},
    "top_p": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "top_logprobs": 0,
    "temperature": 1.0,
    "reasoning": None,
    "usage": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "store": False,
    "background": False,
    "service_tier": "default",
    "metadata": {},
    "safety_identifier": None,
    "prompt_cache_key": None,
}


class Dialect:
    """Translates the events of one run, or its response, to a dialect.

    Args:
        name: the dialect.
        tool_items: the form of the agent's own tool calls; by default that of the dialect.
        own_tools: names of tools that the agent runs itself.
        model: the ``model`` of a response in the dialect ``open_responses``.
        echo: fields of the request that the response repeats, in the dialect ``open_responses``.
        client_tools: names of tools that the client has offered.
        own_ids: whether the response gets a new id instead of the agent's, in the dialect ``open_responses``.

    Attributes:
        metadata: entries for the ``metadata`` of each response, in the dialect ``open_responses``.
    """

    def __init__(
        self,
        name: DialectName = "mlflow",
        tool_items: ToolItemForm | None = None,
        own_tools: Container[str] = (),
        model: str = "agent",
        echo: Mapping[str, Any] | None = None,
        client_tools: Container[str] = (),
        own_ids: bool = False,
    ):
        self._standard = name == "open_responses"
        self.metadata: dict[str, str] = {}
        form: Literal["mcp_call", "function_call"] = "mcp_call" if self._standard else "function_call"
        self._tool_items = ToolItems(tool_items or form, form, own_tools, client_tools)
        self._base = {**_RESOURCE, "model": model, **{k: v for k, v in (echo or {}).items() if v is not None}}
        self._fixed = (*_FIXED, "id") if own_ids else _FIXED
        self._item_events = ItemEvents()
        self._sequence = 0
        self._started = False
        self._ended = False
        self._error: Mapping[str, Any] | None = None
        self._finished: list[Mapping[str, Any]] = []
        self._id, self._created_at = f"resp_{uuid.uuid4().hex}", int(time.time())

    def events(self, events: Iterable[Event]) -> Iterator[Event]:
        """Translate a stream of events.

        In the dialect ``open_responses``, a stream of an agent that doesn't send them gets a ``response.created``, a
        terminal event, and the events that begin and end each item and part.
        """
        for event in events:
            yield from self.event(event)
        yield from self.end()

    def event(self, event: Event) -> Iterator[Event]:
        """Translate one event."""
        if not self._standard:
            yield from map(self._numbered, map(self._with_output, self._tool_items.read(event)))
            return
        kind = event["type"]
        if not self._started and kind != "response.created":
            yield from self._start()
        self._started = True
        if kind == "response.completed":
            yield from self._close("completed", event["response"].get("output") or ())
        elif kind == "error" or kind in ENDINGS:
            yield from self._close()
        self._ended = self._ended or kind in ENDINGS
        if kind == "error":
            self._error = event
        for complete in self._item_events.read(event):
            yield from self._translated(complete)

    def _close(self, status: str = "incomplete", output: Iterable[Any] = ()) -> Iterator[Event]:
        """End the messages that the agent has left open."""
        for event in self._item_events.close(status, output):
            yield from self._translated(event)

    def _translated(self, event: Event) -> Iterator[Event]:
        if event["type"] == "response.output_item.done":
            self._finished.append(event["item"])
        for translated in self._tool_items.read(event):
            yield self._numbered(self._complete(self._with_output(translated)))

    def end(self) -> Iterator[Event]:
        """Yield the terminal event of a stream that has none."""
        if not self._standard or self._ended:
            return
        if not self._started:
            yield from self._start()
        yield from self._close("completed")
        fields: dict[str, Any] = {"status": "completed"}
        if self._error is not None:
            error = {"code": self._error.get("code") or "server_error", "message": self._error.get("message") or ""}
            fields = {"status": "failed", "error": error}
        yield from self.event(
            {"type": f"response.{fields['status']}", "response": {"output": list(self._finished), **fields}}
        )

    def response(self, response: Mapping[str, Any]) -> dict[str, Any]:
        """Translate the response of a request that doesn't stream."""
        output = response.get("output") or ()
        if self._standard:
            output = map(complete_item, output)
        translated = {**response, "output": self._tool_items.output(output)}
        return self._resource(translated) if self._standard else translated

    def encode(self, event: Event) -> bytes:
        """Encode a translated event as a server-sent event."""
        line = f"event: {event['type']}\n" if self._standard else ""
        return f"{line}data: {json.dumps(event)}\n\n".encode()

    def _start(self) -> Iterator[Event]:
        self._started = True
        response = {"status": "in_progress", "output": []}
        for kind in ("response.created", "response.in_progress"):
            yield from self.event({"type": kind, "response": response})

    def _with_output(self, event: Event) -> Event:
        response = event.get("response")
        if not isinstance(response, Mapping) or "output" not in response:
            return event
        output, ended = response["output"], event["type"] in ENDINGS
        if self._standard and ended:
            output = map(complete_item, output)
        output = self._tool_items.output(output, ended)
        return {**event, "response": {**response, "output": output}}

    def _complete(self, event: Event) -> Event:
        if "response" in event:
            return {**event, "response": self._resource(event["response"])}
        return event

    def _resource(self, response: Mapping[str, Any]) -> dict[str, Any]:
        given = {name: value for name, value in response.items() if value is not None and name not in self._fixed}
        resource = {"id": self._id, "created_at": self._created_at, "status": "completed", **self._base, **given}
        resource["created_at"] = int(resource["created_at"])
        resource["metadata"] = {**self._base["metadata"], **resource["metadata"], **self.metadata}
        if resource["status"] == "completed":
            resource["completed_at"] = int(time.time())
        return resource

    def _numbered(self, event: Event) -> Event:
        if not self._standard and "sequence_number" not in event and self._sequence == 0:
            return event  # an agent that doesn't number its events
        numbered = {**event, "sequence_number": self._sequence}
        self._sequence += 1
        return numbered


_FIXED = ("model", "tools", "tool_choice", "parallel_tool_calls")  # as the specification has them, or the request
