"""Check responses and streams against the schemas of Open Responses (``openresponses-types``).

The specification leaves items such as ``mcp_call`` and their events to extensions, and its schemas refuse them. They
are set aside here and checked by the types of the ``openai`` package.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Optional, Union

import openai.types.responses as openai_types
import pytest
from openai.types.responses.response_output_item import McpApprovalRequest, McpCall
from pydantic import BaseModel, Field, TypeAdapter

if sys.version_info < (3, 11):
    pytest.skip("openresponses-types needs Python 3.11", allow_module_level=True)
types: Any = importlib.import_module("openresponses_types")

Event = dict[str, Any]
TERMINAL = ("response.completed", "response.incomplete", "response.failed")

_EVENTS: dict[str, type[BaseModel]] = {
    str(next(iter(model.model_fields["type"].annotation))): model
    for name, model in vars(types).items()
    if name.endswith("StreamingEvent") and isinstance(model, type)
}
_EXTENSION_ITEMS: dict[str, type[BaseModel]] = {"mcp_call": McpCall, "mcp_approval_request": McpApprovalRequest}
_OPENAI_EVENT: TypeAdapter[Any] = TypeAdapter(
    Annotated[Union[openai_types.ResponseStreamEvent], Field(discriminator="type")]  # noqa: UP007
)


def check_response(response: Mapping[str, Any]) -> None:
    """Check a response resource."""
    items = response["output"]
    for item in items:
        _check_extension(item)
    standard = {**response, "output": [item for item in items if item["type"] not in _EXTENSION_ITEMS]}
    types.ResponseResource.model_validate_json(json.dumps(standard))


def check_events(events: Iterable[Event], in_order: bool = True) -> None:
    """Check each event of a stream, and that the events are those of the terminal response.

    Args:
        events: the stream.
        in_order: whether the terminal response has the items in the order of the stream.
    """
    events = list(events)
    for event in events:
        check_event(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    assert [event["type"] for event in events if event["type"] in TERMINAL] == [events[-1]["type"]]
    added = {event["output_index"]: event["item"] for event in events if event["type"] == "response.output_item.added"}
    done = {event["output_index"]: event["item"] for event in events if event["type"] == "response.output_item.done"}
    assert list(added) == list(range(len(added)))
    assert sorted(done) == list(added)
    assert all(
        added[index]["id"] == item["id"] and added[index]["type"] == item["type"] for index, item in done.items()
    )
    output = events[-1]["response"]["output"]
    drafts = [item for item in done.values() if item.get("status") == "incomplete" and item not in output]
    assert {item["type"] for item in drafts} <= {"message"}
    lasting = [item for _, item in sorted(done.items()) if item not in drafts]
    assert (lasting if in_order else sorted(lasting, key=str)) == (output if in_order else sorted(output, key=str))
    for event in events:
        if "item_id" in event:
            assert added[event["output_index"]]["id"] == event["item_id"]


def check_event(event: Event) -> None:
    """Check one event."""
    item = event.get("item") or {}
    if item.get("type") in _EXTENSION_ITEMS:
        _check_extension(item)
        _OPENAI_EVENT.validate_python({**event, "item": {**item, "error": None}} if "error" in item else event)
    elif event["type"].startswith("response.mcp_call"):
        _OPENAI_EVENT.validate_python(event)
    elif "response" in event:
        check_response(event["response"])
    else:
        _EVENTS[event["type"]].model_validate_json(json.dumps(event))


def _check_extension(item: Mapping[str, Any]) -> None:
    if item["type"] in _EXTENSION_ITEMS:
        check_openai_item(item)


def check_openai_item(item: Mapping[str, Any]) -> None:
    """Check an item of OpenAI's own. The error of a call, an object in openai 3, is a text in openai 2."""
    error_is_text = item.get("error") and McpCall.model_fields["error"].annotation == Optional[str]  # noqa: UP045
    given = {**item, "error": json.dumps(item["error"])} if error_is_text else item
    _EXTENSION_ITEMS[item["type"]].model_validate(given, strict=True)


def read_events(body: str) -> list[Event]:
    """Read a stream of server-sent events: ``event`` and ``data`` lines, and ``[DONE]`` at the end."""
    *blocks, last = body.removesuffix("\n\n").split("\n\n")
    assert last == "data: [DONE]"
    events = []
    for block in blocks:
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        events.append(event)
    return events
