"""What a server sends whose own tools are ``mcp_call`` items, made from what MLflow's dialect sends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from oneturn.responses.tool_items import tool_error
from tests.open_responses import check_openai_item

Item = dict[str, Any]
FIELDS = ("type", "id", "server_label", "name", "arguments", "output", "error", "status", "approval_request_id")


def as_mcp(items: Sequence[Item], dropping: Sequence[str] = ("sources",)) -> list[Item]:
    """The items with each call and its output as one ``mcp_call``, which openai's types take."""
    outputs = {item["call_id"]: item for item in items if item.get("type") == "function_call_output"}
    converted = []
    for item in items:
        if item.get("type") == "function_call":
            converted.append(_mcp_call(item, outputs.get(item["call_id"]), dropping))
        elif item.get("type") != "function_call_output":
            converted.append(item)
    return converted


def _mcp_call(call: Item, answer: Item | None, dropping: Sequence[str]) -> Item:
    output = None if answer is None else answer["output"]
    failed = output is not None and output.startswith("Error: ")
    item: Item = {
        "type": "mcp_call",
        "id": f"mcp_{call['call_id']}",
        "server_label": "oneturn",
        "name": call["name"],
        "arguments": call["arguments"],
        "output": None if failed else output,
        "error": tool_error(str(output)) if failed else None,
        "status": "incomplete" if output is None else "failed" if failed else "completed",
        "approval_request_id": None,
    }
    check_openai_item(item)
    if answer is not None and "sources" in answer and "sources" not in dropping:
        item["sources"] = answer["sources"]
    return item


def as_mcp_events(events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The stream with the events that OpenAI has for ``mcp_call`` items."""
    outputs = [each["item"] for each in events if _is(each, "done", "function_call_output")]
    calls: dict[str, Item] = {}  # by call id
    converted: list[dict[str, Any]] = []
    for event in events:
        item = event.get("item") or {}
        if "arguments" in event["type"]:
            name = event["type"].replace("function_call", "mcp_call")
            converted.append({key: value for key, value in {**event, "type": name}.items() if key != "name"})
        elif _is(event, "added", "function_call"):
            (call,) = as_mcp([item])
            converted.append({**event, "item": {**call, "arguments": "", "status": "in_progress"}})
        elif _is(event, "done", "function_call"):
            calls[item["call_id"]], *_ = as_mcp([item, *outputs])
            converted.append({"type": "response.mcp_call.in_progress", "item_id": calls[item["call_id"]]["id"]})
        elif _is(event, "done", "function_call_output"):
            call = calls[item["call_id"]]
            converted.append({"type": f"response.mcp_call.{call['status']}", "item_id": call["id"]})
            converted.append({**event, "item": call})
        elif "response" in event:
            response = event["response"]
            converted.append({**event, "response": {**response, "output": as_mcp(response["output"])}})
        elif not _is(event, "added", "function_call_output"):
            converted.append(event)
    ids = {item["id"].removeprefix("fc_"): call["id"] for item, call in _pairs(events, calls)}
    for event in converted:
        if "mcp_call_arguments" in event["type"]:
            event["item_id"] = ids[event["item_id"].removeprefix("fc_")]
    return converted


def _pairs(events: Sequence[dict[str, Any]], calls: dict[str, Item]) -> list[tuple[Item, Item]]:
    done = [event["item"] for event in events if _is(event, "done", "function_call")]
    return [(item, calls[item["call_id"]]) for item in done]


def _is(event: dict[str, Any], state: str, kind: str) -> bool:
    return event["type"] == f"response.output_item.{state}" and event["item"]["type"] == kind
