"""Calls and their outputs."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from oneturn.conformance.rules import Findings, shown

Placed = tuple[int | None, Mapping[str, Any]]
"""A finished item, with its place in the stream if it came from one."""


def check_calls(
    items: Sequence[Placed], found: Findings, *, answered: bool, broken_off: bool, earlier: Collection[str]
) -> None:
    """That every output has its call, and every call its output.

    Args:
        items: the finished items, in order.
        found: where violations go.
        answered: whether the agent runs all its tools itself, so that a call at the end must have its output too.
        broken_off: whether the response failed or is incomplete; its last calls may be without output then.
        earlier: ``call_id``s of calls in the request's own input.
    """
    calls: dict[str, int] = {}
    outputs: set[str] = set()
    for number, (place, item) in enumerate(items):
        call_id = str(item.get("call_id"))
        if item.get("type") == "function_call":
            if call_id in calls:
                found.add("call-id-reused", f"A second call has the call_id {call_id!r}.", place)
            calls[call_id] = number
            _check_arguments(item, place, found)
        elif item.get("type") == "function_call_output":
            if call_id in outputs:
                found.add("call-id-reused", f"A second output has the call_id {call_id!r}.", place)
            elif call_id not in calls and call_id not in earlier:
                found.add("output-without-call", f"No call before has the call_id {call_id!r}.", place)
            outputs.add(call_id)
    for call_id in calls.keys() - outputs:
        number = calls[call_id]
        if not (broken_off or _ends_the_turn(items[number + 1 :])) or (answered and not broken_off):
            found.add("call-without-output", f"The call {call_id!r} has no output.", items[number][0])


def _ends_the_turn(after: Sequence[Placed]) -> bool:
    """Whether a call that is followed by this may be left to the client: nobody went on with the turn."""
    waiting = ("function_call", "function_call_output", "mcp_approval_request")
    return all(item.get("type") in waiting for _, item in after)


def _check_arguments(item: Mapping[str, Any], place: int | None, found: Findings) -> None:
    told = item.get("arguments")
    try:
        arguments = json.loads(told) if isinstance(told, str) else None
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        found.add("arguments-json", f"The arguments of {item.get('name')} are {shown(told)}.", place)
