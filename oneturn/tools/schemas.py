"""JSON schemas of arguments that others declare, such as MCP servers, in the form that prompts and dialects read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_ANNOTATIONS = ("title", "description", "default")
_MAX_COPIED = 500
"""How many lists and objects of a schema are copied into its alternatives. Nested ones double with each level."""


def plain_schema(schema: Any) -> dict[str, Any]:
    """Return an equivalent schema in which every schema is an object, alternatives are whole, and ``allOf`` is merged.

    ``true`` becomes an empty schema. What stands beside ``anyOf`` or ``oneOf``, such as ``properties``, becomes part of
    each alternative, but for a large schema, which loses its alternatives. A keyword with a value of a wrong kind is
    left out.
    """
    if not isinstance(schema, Mapping):
        return {"not": {}} if schema is False else {}
    plain = {key: value for key, value in schema.items() if _is_well_formed(key, value)}
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


def _is_well_formed(key: str, value: Any) -> bool:
    if key in ("anyOf", "oneOf"):
        return isinstance(value, list) and bool(value)
    if key in ("allOf", "prefixItems", "enum"):
        return isinstance(value, list)
    if key == "required":
        return isinstance(value, list) and all(isinstance(name, str) for name in value)
    return key != "properties" or isinstance(value, Mapping)


def _with_whole_options(schema: dict[str, Any]) -> dict[str, Any]:
    key = "anyOf" if "anyOf" in schema else "oneOf"
    around = {name: value for name, value in schema.items() if name in _ANNOTATIONS}
    beside = {name: value for name, value in schema.items() if name != key and name not in around}
    if key not in schema or "properties" not in beside or any("$ref" in option for option in schema[key]):
        return schema
    if _size(beside) * len(schema[key]) > _MAX_COPIED:
        return {**around, **beside}
    return {**around, key: [_merged(beside, option) for option in schema[key]]}


def _size(value: Any) -> int:
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else None
    return 0 if parts is None else 1 + sum(map(_size, parts))


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
