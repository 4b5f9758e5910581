"""The tools as a prompt lists them.

An LM with a schema needs one line for each tool. For any other LM the prompt has all that the schema has: nested
fields, enum values, descriptions and defaults.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]


def describe_call(name: str, schema: Schema, description: str, type_of: Callable[[Schema], str] | None = None) -> str:
    """Return a line for a tool with its arguments, then a line for every described argument.

    Args:
        name: the tool's name.
        schema: the JSON schema of its arguments.
        description: what it does.
        type_of: returns the text of an argument's type; by default :func:`type_name`.
    """
    properties = schema["properties"]
    signature = ", ".join(
        _argument(arg, inner, arg in schema["required"], type_of or type_name) for arg, inner in properties.items()
    )
    lines = [f"- {name}({signature}): {description}"]
    lines += [f"    {arg}: {inner['description']}" for arg, inner in properties.items() if inner.get("description")]
    return "\n".join(lines)


def describe_call_fully(name: str, schema: Schema, description: str) -> str:
    """Return the lines of :func:`describe_call`, and one for every described field of a nested object."""
    text = describe_call(name, schema, description, type_of=full_type)
    nested = [line for arg, inner in schema["properties"].items() for line in _described_fields(arg, inner)]
    return "\n".join([text, *(f"    {line}" for line in nested)])


def describe_types(definitions: Mapping[str, Schema]) -> str:
    """Return the named types of arguments: their values, or their fields with descriptions."""
    lines = []
    for name, schema in definitions.items():
        description = f"  ({' '.join(schema['description'].split())})" if schema.get("description") else ""
        lines.append(f"- {name}: {full_type(schema)}{description}")
        lines += [f"    {line}" for line in _described_fields("", schema)]
    return "\n".join(lines)


_PLAIN = ("string", "integer", "number", "boolean", "null")
_FORMATS = ("date", "date-time", "time", "duration", "uuid", "email", "uri")
"""Formats of texts that an LM knows by their name in JSON Schema."""


def type_name(schema: Schema) -> str:
    """Return a short name for a JSON schema's type, for prompts and messages."""
    if "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema["enum"])
    if "anyOf" in schema:
        return " | ".join(type_name(option) for option in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {type_name(schema.get('items', {}))}"
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1]
    name = str(schema.get("type", "any"))
    return f"{name} ({schema['format']})" if schema.get("format") in _FORMATS else name


def is_plain(schema: Schema, definitions: Mapping[str, Schema]) -> bool:
    """Return whether a JSON schema's values are neither lists nor objects."""
    if "$ref" in schema:
        return is_plain(definitions[schema["$ref"].rsplit("/", 1)[-1]], definitions)
    if "anyOf" in schema:
        return all(is_plain(option, definitions) for option in schema["anyOf"])
    return "enum" in schema or "const" in schema or schema.get("type") in _PLAIN


def _argument(name: str, schema: Schema, required: bool, type_of: Callable[[Schema], str]) -> str:
    if required:
        return f"{name}: {type_of(schema)}"
    default = schema.get("default")
    if default is None:
        return f"{name}?: {type_of(schema)}"
    return f"{name}: {type_of(schema)} = {json.dumps(default, ensure_ascii=False, default=str)}"


def full_type(schema: Schema) -> str:
    """Return the type with the fields of objects, which :func:`type_name` leaves out."""
    if "const" in schema:
        return json.dumps(schema["const"])
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return " | ".join(full_type(option) for option in options)
    if prefix := schema.get("prefixItems"):
        return "[" + ", ".join(full_type(item) for item in prefix) + "]"
    if isinstance(schema.get("type"), list):
        return " | ".join(schema["type"])
    if properties := schema.get("properties"):
        required = schema.get("required", ())
        fields = [_argument(name, inner, name in required, full_type) for name, inner in properties.items()]
        if isinstance(further := schema.get("additionalProperties"), Mapping):
            fields.append(f"…: {full_type(further)}")
        return "{" + ", ".join(fields) + "}"
    if schema.get("type") == "array":
        return f"list of {full_type(schema.get('items') or {})}"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), Mapping):
        return f"object of {full_type(schema['additionalProperties'])} values"
    return type_name(schema)


def full_type_with_descriptions(schema: Schema) -> str:
    """Return :func:`full_type`, and the descriptions of the fields of objects, in one line."""
    return "; ".join([full_type(schema), *_described_fields("", schema)])


def _described_fields(path: str, schema: Schema) -> Iterator[str]:
    for option in schema.get("anyOf") or schema.get("oneOf") or ():
        yield from _described_fields(path, option)
    if isinstance(schema.get("items"), Mapping):
        yield from _described_fields(f"{path}[]", schema["items"])
    for name, inner in (schema.get("properties") or {}).items():
        field = f"{path}.{name}" if path else name
        if inner.get("description"):
            yield f"{field}: {' '.join(inner['description'].split())}"
        yield from _described_fields(field, inner)
