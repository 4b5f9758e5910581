"""A response without a stream, graded; and whether a stream says the same."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from oneturn.conformance.endings import check_error, check_reason, check_response_types, check_usage
from oneturn.conformance.events import done_items, objects, plain, same
from oneturn.conformance.items import check_calls
from oneturn.conformance.rules import Findings, Violation, shown

_STATUSES = ("completed", "incomplete", "failed")
_PASSING = frozenset({"id", "call_id", "status"})


def check_response(
    response: Mapping[str, Any] | BaseModel, *, answered: bool = False, earlier_calls: Collection[str] = ()
) -> list[Violation]:
    """What is wrong with a whole response, as ``/responses`` gives it without a stream; empty if nothing is.

    Args:
        response: the response, as a dict or as a pydantic model of MLflow or openai.
        answered: as in :func:`check_stream`.
        earlier_calls: as in :func:`check_stream`.
    """
    told = plain(response)
    status = told.get("status")
    found = Findings(weaker=not (told.get("id") and status))
    if not told.get("id"):
        found.add("response-id-missing", "The response has no id.")
    if status is not None and status not in _STATUSES:
        found.add("response-status", f"The response is {status!r}.")
    _check_items(told, found)
    items = objects(told.get("output"))
    broken_off = status in ("incomplete", "failed")
    placed = [(None, item) for item in items]
    check_calls(placed, found, answered=answered, broken_off=broken_off, earlier=earlier_calls)
    if status == "failed":
        check_error(told.get("error"), found)
    elif status == "incomplete":
        check_reason(told, found)
    else:
        check_usage(told, found)
    check_response_types(told, found)
    return found.in_order()


def compare(
    events: Iterable[Mapping[str, Any] | BaseModel], response: Mapping[str, Any] | BaseModel
) -> list[Violation]:
    """Where a stream says something else than the response to the same question, ids aside.

    Only of use where the agent is deterministic.
    """
    found = Findings()
    streamed = [_lasting(item) for item in done_items(plain(event) for event in events)]
    whole = [_lasting(item) for item in objects(plain(response).get("output"))]
    if len(streamed) != len(whole):
        found.add("stream-differs", f"The stream has {len(streamed)} items, the response {len(whole)}.")
    for number, (one, other) in enumerate(zip(streamed, whole, strict=False)):
        if not same(one, other):
            found.add(
                "stream-differs", f"Item {number}: the stream has {shown(one, 200)}, the response {shown(other, 200)}."
            )
    return found.in_order()


def _lasting(item: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in item.items() if key not in _PASSING}


def _check_items(told: Mapping[str, Any], found: Findings) -> None:
    output = told.get("output")
    if not isinstance(output, list):
        found.add("openai-types", f"output is {shown(output)}, not a list.")
    ids: list[Any] = []
    for item in objects(output):
        id = item.get("id")
        if not id:
            found.add("item-id-missing", f"A {item.get('type')} has no id.")
        elif id in ids:
            found.add("item-id-reused", f"The id {id!r} names a second item, a {item.get('type')}.")
        ids.append(id)
        if item.get("status") == "in_progress":
            found.add("item-status", f"{item.get('type')} {id} is in_progress.")
