"""JSON schemas of arguments that others declare, such as MCP servers, in the form that prompts and dialects read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_ANNOTATIONS = ("title", "description", "default")


def plain_schema(schema: Any) -> dict[str, Any]:
    """Return an equivalent schema in which every schema is an object, alternatives are whole, and ``allOf`` is merged.

    ``true`` becomes an empty schema. What stands beside ``anyOf`` or ``oneOf``, such as ``properties``, becomes part of
    each alternative.
    """
    if not isinstance(schema, Mapping):
        return {"not": {}} if schema is False else {}
    plain = dict(schema)
    if isinstance(plain.get("items"), list):
        plain["prefixItems"] = plain.pop("items")
    for key in ("items", "additionalProperties"):
        if key in plain and not (key == "additionalProperties" and isinstance(plain[key], bool)):
            plain[key] = plain_schema(plain[key])
    for key in _LISTS:
        if key in plain:
            plain[key] = [plain_schema(part) for part in plain[key]]
    if "properties" in plain:
        plain["properties"] = {name: plain_schema(inner) for name, inner in plain["properties"].items()}
    for part in reversed(plain.pop("allOf", [])):
        plain = _merged(part, plain)
    return _with_whole_options(plain)


def _with_whole_options(schema: dict[str, Any]) -> dict[str, Any]:
    key = "anyOf" if "anyOf" in schema else "oneOf"
    around = {name: value for name, value in schema.items() if name in _ANNOTATIONS}
    beside = {name: value for name, value in schema.items() if name != key and name not in around}
    if key not in schema or "properties" not in beside or any("$ref" in option for option in schema[key]):
        return schema
    return {**around, key: [_merged(beside, option) for option in schema[key]]}


def _merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema of what fits both; of two values for a keyword, that of ``other``."""
    merged = {**one, **other}
    properties, more = one.get("properties", {}), other.get("properties", {})
    if properties or more:
        both = {name: _merged(properties[name], more[name]) for name in properties.keys() & more.keys()}
        merged["properties"] = {**properties, **more, **both}
    if required := [*one.get("required", []), *other.get("required", [])]:
        merged["required"] = list(dict.fromkeys(required))
    return merged
