"""Events as dicts, and the helpers that all checks share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from pydantic import BaseModel

Event: TypeAlias = Mapping[str, Any]
"""An event as a JSON object."""

TERMINAL = frozenset({"response.completed", "response.incomplete", "response.failed", "error"})
ADDED = "response.output_item.added"
DONE = "response.output_item.done"


def to_mapping(event: Mapping[str, Any] | BaseModel) -> Event:
    """Convert an event or a response, a dict or a pydantic model of MLflow or openai, to a dict."""
    if isinstance(event, BaseModel):
        return event.model_dump(mode="json", warnings=False)
    return event


def kind(event: Event) -> str:
    """Return the event's type: ``error`` for an untyped error of MLflow or Databricks, empty if there is none."""
    event_type = event.get("type")
    if isinstance(event_type, str) and event_type:
        return event_type
    return "error" if untyped_error(event) is not None else ""


def untyped_error(event: Event) -> Any:
    """Return the error of an event without a type: MLflow sends ``{"error": …}``, Databricks ``databricks_output``."""
    databricks = mapping(event.get("databricks_output")).get("error")
    return databricks or event.get("error")


def stream_error(event: Event) -> Any:
    """Return the error of an ``error`` event: the object nested in it, the event itself, or that of an untyped one.

    Open Responses nests the error, OpenAI's clients read its fields from the event.
    """
    if not event.get("type"):
        return untyped_error(event)
    nested = {name: value for name, value in mapping(event.get("error")).items() if value is not None}
    return {**event, **nested} if nested else event


def is_mlflow_contract(events: Iterable[Event]) -> bool:
    """Whether the events follow MLflow's contract: no ``response.created``, no ``response.output_item.added``."""
    return not any(kind(event) in ("response.created", ADDED) for event in events)


def mapping(value: Any) -> Mapping[str, Any]:
    """Return ``value`` if it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def objects(value: Any) -> list[Mapping[str, Any]]:
    """Return the entries of a list as objects; no entries if ``value`` isn't a list."""
    return [mapping(entry) for entry in value] if isinstance(value, list) else []


def integer(value: Any) -> bool:
    """Whether ``value`` is a JSON integer; ``true`` is not."""
    return isinstance(value, int) and not isinstance(value, bool)


def same(one: Any, other: Any) -> bool:
    """Whether both values are equal; a null field equals a missing one."""
    return bool(_comparable(one) == _comparable(other))


def _comparable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _comparable(entry) for key, entry in value.items() if entry is not None}
    if isinstance(value, list):
        return [_comparable(entry) for entry in value]
    return (bool, value) if isinstance(value, bool) else value  # in Python, True == 1


def done_items(events: Iterable[Event]) -> list[Mapping[str, Any]]:
    """Return the done items, in stream order."""
    return [mapping(event.get("item")) for event in events if kind(event) == DONE]


def is_draft(item: Mapping[str, Any]) -> bool:
    """Return whether an item is a message that was abandoned; a terminal response may leave it out."""
    return item.get("type") == "message" and item.get("status") == "incomplete"


def message_text(items: Iterable[Mapping[str, Any]]) -> str:
    """Return the text of all messages in ``items``."""
    messages = [item for item in items if item.get("type") == "message"]
    parts = [part for message in messages for part in objects(message.get("content"))]
    return "".join(str(part.get("text") or part.get("refusal") or "") for part in parts)


def streamed_text(events: Iterable[Event]) -> str:
    """Return the text of all message deltas."""
    kinds = ("response.output_text.delta", "response.refusal.delta")
    return "".join(str(event.get("delta") or "") for event in events if kind(event) in kinds)
