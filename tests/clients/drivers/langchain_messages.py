"""Read LangChain's messages."""

from __future__ import annotations

import json
from typing import Any

from cells import Left, turn
from langchain_core.messages import HumanMessage, ToolMessage


def stream_message(model: Any, messages: list[Any], leave: bool, **options: Any) -> tuple[Any, list[Any], int]:
    """Return the sum of a stream's chunks, the messages with tool results among them, and how many had text.

    Raises:
        Left: ``leave`` is set, and the first text has come.
    """
    whole, results, deltas = None, [], 0
    for chunk in model.stream(messages, **options):
        if isinstance(chunk, ToolMessage):
            results.append(chunk)
            continue
        whole = chunk if whole is None else whole + chunk
        deltas += bool(chunk.text)
        if deltas and leave:
            raise Left
    return whole, results, deltas


def read_message(message: Any, deltas: int = 0) -> dict[str, Any]:
    """Return the turn that a message shows."""
    blocks = message.content_blocks
    results = {block["tool_call_id"]: block.get("output") for block in blocks if block["type"] == "server_tool_result"}
    notes = [note for block in blocks if block["type"] == "text" for note in block.get("annotations", [])]
    return turn(
        message.text,
        deltas=deltas,
        tools=[
            [block.get("extras", {}).get("tool_name", block["name"]), results.get(block["id"])]
            for block in blocks
            if block["type"] == "server_tool_call"
        ],
        to_run=[call["name"] for call in message.tool_calls],
        citations=[note["url"] for note in notes if note.get("url")],
        approvals=[[request["name"], json.loads(request["arguments"])] for request in _requests(message)],
    )


def read_databricks_message(message: Any, results: list[Any], deltas: int = 0) -> dict[str, Any]:
    """Return the turn that a message of ``ChatDatabricks`` shows; in a stream, tool results are messages."""
    blocks = _blocks(message)
    outputs = {block["tool_call_id"]: block["content"] for block in blocks if block.get("role") == "tool"}
    outputs |= {result.tool_call_id: result.content for result in results}
    notes = [note for block in blocks for note in block.get("annotations") or []]
    requests = _blocks(message, "mcp_approval_request")
    return turn(
        message.text,
        deltas=deltas,
        tools=[[call["name"], outputs[call["id"]]] for call in message.tool_calls if call["id"] in outputs],
        to_run=[call["name"] for call in message.tool_calls],
        citations=[note["url"] for note in notes],
        approvals=[[request["name"], json.loads(request["arguments"])] for request in requests],
    )


def decision(message: Any, approve: bool) -> HumanMessage:
    """Return the message that decides the approval request of ``message``."""
    (request,) = _requests(message) or _blocks(message, "mcp_approval_request")
    answer = {"type": "mcp_approval_response", "approval_request_id": request["id"], "approve": approve}
    return HumanMessage([answer])


def _requests(message: Any) -> list[dict[str, Any]]:
    values = [block["value"] for block in message.content_blocks if block["type"] == "non_standard"]
    return [value for value in values if value.get("type") == "mcp_approval_request"]


def _blocks(message: Any, kind: str | None = None) -> list[dict[str, Any]]:
    content = message.content if isinstance(message.content, list) else []
    blocks = [block for block in content if isinstance(block, dict)]
    return blocks if kind is None else [block for block in blocks if block.get("type") == kind]
