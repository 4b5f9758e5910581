"""Read the response objects of clients that give the protocol's items as they are: openai and litellm."""

from __future__ import annotations

import json
from typing import Any

from cells import clock, turn


def read_response(response: Any, deltas: int = 0) -> dict[str, Any]:
    """Return the turn that a response object of the Responses API shows."""
    items = [item if isinstance(item, dict) else item.model_dump() for item in response.output]
    contents = [part for item in items if item["type"] == "message" for part in item["content"]]
    notes = [note for part in contents for note in part.get("annotations") or []]
    return turn(
        "".join(part.get("text", "") for part in contents),
        deltas=deltas,
        tools=[[item["name"], item["output"]] for item in items if item["type"] == "mcp_call"],
        to_run=[item["name"] for item in items if item["type"] == "function_call"],
        citations=[note["url"] for note in notes if note["type"] == "url_citation"],
        approvals=[
            [item["name"], json.loads(item["arguments"])] for item in items if item["type"] == "mcp_approval_request"
        ],
    )


def decision(items: list[Any], approve: bool) -> dict[str, Any]:
    """Return the item that decides the approval request among ``items``."""
    dumped = [item if isinstance(item, dict) else item.model_dump() for item in items]
    (request_id,) = [item["id"] for item in dumped if item["type"] == "mcp_approval_request"]
    return {"type": "mcp_approval_response", "approval_request_id": request_id, "approve": approve}


def outputs(items: list[Any]) -> tuple[list[dict[str, Any]], list[list[Any]]]:
    """Run the client's function for its calls among ``items``; return the items with the outputs, and what was run."""
    dumped = [item if isinstance(item, dict) else item.model_dump() for item in items]
    answered = {item["call_id"] for item in dumped if item["type"] == "function_call_output"}
    made = [item for item in dumped if item["type"] == "function_call" and item["call_id"] not in answered]
    ran = [[item["name"], json.loads(item["arguments"])] for item in made]
    results = [
        {"type": "function_call_output", "call_id": item["call_id"], "output": clock(**arguments)}
        for item, (_, arguments) in zip(made, ran, strict=True)
    ]
    return results, ran
