"""The JSON schema of a client tool's arguments, as the LM and the check of its calls get it.

A client's schema isn't trusted: references are resolved within a limit, bounds that a local LM's grammar would repeat a
rule for are left out, and a pattern becomes part of the description, as texts are never matched against it.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from typing import Any

import jsonschema

MAX_SIZE = 3000
"""How many schemas the schemas of a request may contain, references resolved: they can grow exponentially."""

_MAX_DEPTH = 40  # of schemas in schemas
_MAX_BOUND = 1000  # the grammar of a local LM repeats a rule as often as a bound says
_MAX_CACHED = 20_000  # characters
_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uuid"})
_BOUNDS = frozenset({"minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"})
_DATA = frozenset({"type", "enum", "const", "default", "required", "uniqueItems"}) | {
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
}
_NAMES = ("type", "required")  # lists of names, each different from the others
_DEPENDENCIES = ("dependentRequired", "dependencies")  # mappings to such lists
_MOST_MIXED = 20
_SCHEMAS = frozenset({"items", "additionalProperties", "not", "contains"})
_LISTS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def arguments_schema(parameters: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """Return the schema of a tool's arguments without references, with the keywords that matter to an LM.

    Args:
        parameters: the client's JSON schema.

    Returns:
        The schema, an object, and the number of schemas in it.

    Raises:
        ValueError: it isn't the JSON schema of an object, or it is too large. The message says what it is.
    """
    text = json.dumps(parameters)
    read = _cached if len(text) <= _MAX_CACHED else _read
    return read(text)


def _read(text: str) -> tuple[dict[str, Any], int]:
    given = json.loads(text)
    if text.count("{") > MAX_SIZE:
        raise ValueError(TOO_LARGE)
    reader = _SchemaReader(given)
    check_json_schema(given)
    try:
        schema: dict[str, Any] = reader.read(given)
        if reader.has_deep_references:
            check_json_schema(schema)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except (AttributeError, KeyError, TypeError) as error:  # a reference leads to something that is no schema
        raise ValueError("have a reference to something that isn't a JSON schema") from error
    if schema.get("type", "object") != "object" or _LISTS & schema.keys():
        raise ValueError("aren't the schema of an object, without anyOf, oneOf or allOf around it")
    properties, rest = schema.get("properties", {}), schema.get("additionalProperties", False)
    required = [name for name in schema.get("required", ()) if name in properties]
    closed = {"required": required, "additionalProperties": True if rest == {} else rest}
    return {"type": "object", "properties": properties, **closed}, max(reader.size, text.count("{"))


def check_json_schema(schema: Any) -> None:
    """Check that a client's JSON schema is one, in time that grows with its size.

    Raises:
        ValueError: it isn't, or it is too large or nested too deep. The message says what is wrong with it.
    """
    _check_size(schema)
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except jsonschema.SchemaError as error:
        raise ValueError(f"aren't a JSON schema: {error.message:.200}") from error


def _check_size(schema: Any) -> None:
    schemas, remaining = 0, [schema]
    while remaining:
        value = remaining.pop()
        if isinstance(value, Mapping):
            schemas += 1
            if schemas > MAX_SIZE:
                raise ValueError(TOO_LARGE)
            remaining.extend(value.values())
            dependencies = [value[name] for name in _DEPENDENCIES if isinstance(value.get(name), Mapping)]
            lists = [*(value.get(name) for name in _NAMES), *(each for by in dependencies for each in by.values())]
            if any(map(_is_long_mix, lists)):
                raise ValueError(f"have a list of more than {_MOST_MIXED} names that aren't all texts")
        elif isinstance(value, list):
            remaining.extend(each for each in value if isinstance(each, list | Mapping))


def _is_long_mix(value: Any) -> bool:
    """Whether it is a long list that can't be sorted: jsonschema compares all pairs, to find out if they differ."""
    return isinstance(value, list) and len(value) > _MOST_MIXED and not all(isinstance(each, str) for each in value)


_cached = functools.lru_cache(256)(_read)


class _SchemaReader:
    def __init__(self, root: Mapping[str, Any]):
        self._root = root
        self.size = 0
        self._depth = 0
        self.has_deep_references = False  # which may lead to what nobody has checked

    def read(self, schema: Any, parents: tuple[str, ...] = ()) -> Any:
        self.size += 1
        if self.size > MAX_SIZE:
            raise ValueError(TOO_LARGE)
        if not isinstance(schema, Mapping):
            return schema
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise ValueError(_TOO_DEEP)
        read = self._resolved(schema, parents) if "$ref" in schema else self._read(schema, parents)
        self._depth -= 1
        return read

    def _read(self, schema: Mapping[str, Any], parents: tuple[str, ...]) -> dict[str, Any]:
        read: dict[str, Any] = {}
        for key, value in schema.items():
            if key in _SCHEMAS:
                read[key] = self.read(value, parents)
            elif key in _LISTS:
                read[key] = [self.read(option, parents) for option in value]
            elif key == "properties":
                read[key] = {_checked_name(name): self.read(inner, parents) for name, inner in value.items()}
            elif key in _DATA or (key in _BOUNDS and value <= _MAX_BOUND) or (key == "format" and value in _FORMATS):
                read[key] = value
        description = one_line(schema.get("description"))
        if "pattern" in schema:
            description = f"{description} (pattern: {one_line(schema['pattern'])})".strip()
        return {**read, "description": description} if description else read

    def _resolved(self, schema: Mapping[str, Any], parents: tuple[str, ...]) -> Any:
        reference = schema["$ref"]
        if reference in parents:  # a recursive schema has no finite form
            return {"type": "object", "additionalProperties": True}
        target: Any = self._root
        path = reference.removeprefix("#").split("/")[1:]
        self.has_deep_references |= bool(path) and (len(path) != 2 or path[0] not in ("$defs", "definitions"))
        for key in path:
            key = key.replace("~1", "/").replace("~0", "~")
            target = target.get(key) if isinstance(target, Mapping) else None
        if not re.match(r"#(/|\Z)", reference) or not isinstance(target, Mapping | bool):
            raise ValueError(f"have a reference {reference!r:.80} that leads nowhere; use $defs")
        if isinstance(target, bool):
            return target
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        return self.read({**target, **rest}, (*parents, reference))


def _checked_name(name: str) -> str:
    if _CONTROL.search(name):
        raise ValueError(f"have a property {name!r:.80} with a control character in its name")
    return name


def one_line(text: str | None) -> str:
    """Return the text of a description in one line: in a prompt, lines tell the tools apart."""
    return " ".join((text or "").split())


_TOO_DEEP = f"contain JSON schemas that are nested more than {_MAX_DEPTH} levels deep"
TOO_LARGE = f"contain more than {MAX_SIZE} JSON schemas, references resolved"
