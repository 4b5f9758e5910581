"""Citations: ids that can only name documents which a tool of the same run has given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import pydantic

_FORMAT = "source-id"

Citation = Annotated[str, pydantic.WithJsonSchema({"type": "string", "format": _FORMAT})]
"""The id of a source. Declare an output field as ``list[Citation]`` and the LM can't cite what it hasn't seen."""


def cites(schema: Mapping[str, Any]) -> bool:
    """Whether a property's JSON schema is a list of citations."""
    return schema.get("type") == "array" and schema.get("items", {}).get("format") == _FORMAT


def narrowed(schema: Mapping[str, Any], sources: Sequence[str]) -> dict[str, Any]:
    """An object's schema whose lists of citations may hold ``sources`` only; none when there are none."""
    properties = schema.get("properties", {})
    return {
        **schema,
        "properties": {name: _only(field, sources) if cites(field) else field for name, field in properties.items()},
    }


def _only(field: Mapping[str, Any], sources: Sequence[str]) -> dict[str, Any]:
    items = {"type": "string", "enum": list(sources)} if sources else {"type": "string"}
    return {**field, "items": items, "maxItems": len(sources)}
