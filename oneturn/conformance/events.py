"""What is on the wire, made plain: events as dicts, and the little that all checks ask of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from pydantic import BaseModel

Event: TypeAlias = Mapping[str, Any]
"""An event, as JSON has it."""

TERMINAL = frozenset({"response.completed", "response.incomplete", "response.failed", "error"})
ADDED = "response.output_item.added"
DONE = "response.output_item.done"


def plain(event: Mapping[str, Any] | BaseModel) -> Event:
    """An event or a response as a dict, whether it was one or a pydantic model (MLflow's, openai's)."""
    if isinstance(event, BaseModel):
        return event.model_dump(mode="json", warnings=False)
    return event


def kind(event: Event) -> str:
    """The event's type. Errors that servers send in shapes of their own count as ``error``; else it may be empty."""
    told = event.get("type")
    if isinstance(told, str) and told:
        return told
    return "error" if own_error(event) is not None else ""


def own_error(event: Event) -> Any:
    """The error in an event without a type: ``{"error": …}`` is MLflow's, ``databricks_output`` Databricks'."""
    databricks = mapping(event.get("databricks_output")).get("error")
    return databricks or event.get("error")


def speaks_weaker(events: Iterable[Event]) -> bool:
    """Whether this is MLflow's weaker contract: no ``response.created``, no ``response.output_item.added``."""
    return not any(kind(event) in ("response.created", ADDED) for event in events)


def mapping(value: Any) -> Mapping[str, Any]:
    """``value`` if it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def objects(value: Any) -> list[Mapping[str, Any]]:
    """The objects in a list; none if it isn't one."""
    return [mapping(entry) for entry in value] if isinstance(value, list) else []


def integer(value: Any) -> bool:
    """Whether this is a JSON integer; ``true`` isn't."""
    return isinstance(value, int) and not isinstance(value, bool)


def same(one: Any, other: Any) -> bool:
    """Whether both say the same; a field that is null is as good as none."""
    return bool(_comparable(one) == _comparable(other))


def _comparable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _comparable(entry) for key, entry in value.items() if entry is not None}
    if isinstance(value, list):
        return [_comparable(entry) for entry in value]
    return (bool, value) if isinstance(value, bool) else value  # for Python, True is 1


def done_items(events: Iterable[Event]) -> list[Mapping[str, Any]]:
    """The finished items, in the order in which they were done."""
    return [mapping(event.get("item")) for event in events if kind(event) == DONE]


def message_text(items: Iterable[Mapping[str, Any]]) -> str:
    """The text of all messages among ``items``."""
    messages = [item for item in items if item.get("type") == "message"]
    parts = [part for message in messages for part in objects(message.get("content"))]
    return "".join(str(part.get("text") or part.get("refusal") or "") for part in parts)


def streamed_text(events: Iterable[Event]) -> str:
    """The text that came in deltas of messages."""
    kinds = ("response.output_text.delta", "response.refusal.delta")
    return "".join(str(event.get("delta") or "") for event in events if kind(event) in kinds)
