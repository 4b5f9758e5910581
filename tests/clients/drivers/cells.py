"""What the Python drivers share: read cells from standard input, ask, and print one JSON result per cell.

A driver defines a conversation: a class made from a cell, with ``ask(question)`` and ``decide(approve)``, which both
return a turn. The drivers run in their client's environment and import nothing of this project.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from pydantic import BaseModel


class Answer(BaseModel):
    """The structured output that is asked for."""

    answer: str
    sure: bool


CLOCK = {
    "name": "clock",
    "description": "Tell the time in a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
"""The client's own function, as JSON."""


def clock(city: str) -> str:
    """Tell the time in a city."""
    return "noon"


class Left(Exception):
    """The client has left as the cell says; raised by a driver."""


def turn(text: str = "", **more: Any) -> dict[str, Any]:
    """Return what a client shows of one response.

    Args:
        text: the answer.
        **more: ``deltas``, the number of pieces in which the text came; ``tools``, the server's tools with their
            results; ``to_run``, the tools that the client wants to run itself; ``citations``, URLs; ``approvals``,
            the tools and arguments that wait for a decision; ``parsed``, the structured output; ``ran``, the client's
            own functions that it has run, with their arguments.
    """
    return {"text": text, "deltas": 0, "tools": [], "to_run": [], "citations": [], "approvals": []} | more


def run_cells(conversation_of: Any) -> None:
    """Run each cell of standard input, one JSON object per line."""
    for line in sys.stdin:
        cell = json.loads(line)
        print(json.dumps({"cell": cell["cell"], **_run(conversation_of, cell)}), flush=True)


def _run(conversation_of: Any, cell: dict[str, Any]) -> dict[str, Any]:
    turns: list[dict[str, Any]] = []
    try:
        conversation = conversation_of(cell)
        turns.extend(conversation.ask(question) for question in cell["questions"])
        if cell.get("approve") is not None:
            turns.append(conversation.decide(cell["approve"]))
    except Left:
        return {"turns": turns, "left": True}
    except Exception as error:  # any error that a client raises is what the cell wants to know
        shown = {"type": type(error).__name__, "message": str(error), "status": getattr(error, "status_code", None)}
        return {"turns": turns, "error": shown | {"partial": getattr(error, "partial_text", "")}}
    return {"turns": turns}
