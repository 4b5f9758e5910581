"""Convert JSON values that an LM wrote to the JSON schemas that they were asked for in."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jsonschema
import pydantic
from referencing import Registry
from referencing.exceptions import Unresolvable

Schema = Mapping[str, Any]
Spellings = Sequence[tuple[Sequence[Any], Mapping[str, Any]]]
"""The values of an ``enum``, with other spellings of them in lower case."""

_MAX_ROUNDS = 4  # text may hold an object whose own values are to be converted
_MAX_PARSED = 1_000_000  # characters
_NO_REGISTRY: Registry[Any] = Registry()  # a reference to an address is never fetched
_WRONG_SCHEMA = (
    *(Unresolvable, jsonschema.exceptions.UnknownType, re.error, RecursionError),
    *(TypeError, ValueError, AttributeError, KeyError),
)
_SCALARS: dict[str, pydantic.TypeAdapter[Any]] = {
    "integer": pydantic.TypeAdapter(int),
    "number": pydantic.TypeAdapter(pydantic.FiniteFloat),
    "boolean": pydantic.TypeAdapter(bool),
}


class SchemaConverter:
    """Converts values that don't fit their JSON schema, by the rules for outputs: text to a number, a boolean, ``null``
    or the object that it holds as JSON; a number to text; a choice in another spelling; one value to a list of one.

    A value that fits is returned unchanged, and so is one that no rule makes fit.

    Args:
        validator: the class that validates.
        spellings: other spellings of the choices of an ``enum``.
    """

    def __init__(self, validator: Any = jsonschema.Draft202012Validator, spellings: Spellings = ()):
        self._validator = validator
        self._spellings = spellings

    def fits(self, value: Any, schema: Any) -> bool:
        """Return whether a value fits a schema, or the schema itself is wrong."""
        return not self._errors(value, schema)

    def convert(self, value: Any, schema: Any) -> Any:
        """Return the value, with what doesn't fit the schema converted, also inside objects and lists."""
        for _ in range(_MAX_ROUNDS):
            converted = value
            for error in self._errors(value, schema):
                converted = self._converted_at(converted, list(error.absolute_path), error.schema)
            if json.dumps(converted, default=str) == json.dumps(value, default=str):
                return value
            value = converted
        return value

    def _errors(self, value: Any, schema: Any) -> list[jsonschema.ValidationError]:
        try:
            return list(self._validator(schema, registry=_NO_REGISTRY).iter_errors(value))
        except _WRONG_SCHEMA:
            return []

    def _converted_at(self, value: Any, path: Sequence[Any], schema: Any) -> Any:
        if not path:
            return self._convert(value, schema)
        key, rest = path[0], path[1:]
        if isinstance(value, Mapping) and key in value:
            return {**value, key: self._converted_at(value[key], rest, schema)}
        if isinstance(value, list) and isinstance(key, int) and key < len(value):
            return [self._converted_at(each, rest, schema) if at == key else each for at, each in enumerate(value)]
        return value

    def _convert(self, value: Any, schema: Any) -> Any:
        if not isinstance(schema, Mapping) or self.fits(value, schema):
            return value
        if options := _options(schema):
            converted = (self.convert(value, option) for option in options)
            fitting = (each for each, option in zip(converted, options, strict=True) if self.fits(each, option))
            return next(fitting, value)
        choices = [schema["const"]] if "const" in schema else schema.get("enum")
        if choices and isinstance(value, str):
            return self._choice(value, choices)
        kind = schema.get("type")
        if kind == "array" and not isinstance(parsed := _parsed(value), list):
            items = [] if parsed is None else [self.convert(parsed, schema.get("items", {}))]
            changed = any(isinstance(item, Mapping) != isinstance(parsed, Mapping) for item in items)
            return value if changed or not self.fits(items, schema) else items
        return _of_type(value, str(kind))

    def _choice(self, value: str, choices: Sequence[Any]) -> Any:
        spelled = value.strip().strip("'\"").casefold()
        others = next((names for values, names in self._spellings if list(values) == list(choices)), {})
        return {**others, **{str(each).casefold(): each for each in choices}}.get(spelled, value)


def is_null_text(value: Any) -> bool:
    """Return whether a text stands for ``null``, as formats of calls that can only write text have it."""
    return isinstance(value, str) and value.strip().casefold() in ("", "null", "none")


def _options(schema: Schema) -> list[Any]:
    kinds = schema.get("type")
    options = schema.get("anyOf") or schema.get("oneOf") or ()
    if not options and isinstance(kinds, list):
        options = [{**schema, "type": kind} for kind in kinds]
    return sorted(options, key=lambda option: option != {"type": "null"})  # "null" isn't one of anything else


def _of_type(value: Any, kind: str) -> Any:
    if kind == "string":
        return _as_text(value)
    if kind == "null":
        return None if is_null_text(value) else value
    if kind in _SCALARS:
        try:
            return _SCALARS[kind].validate_python(value)
        except pydantic.ValidationError:
            return value
    return _parsed(value) if kind in ("array", "object") else value


def _as_text(value: Any) -> Any:
    if isinstance(value, Mapping | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    return value if value is None else str(value)


def _parsed(value: Any) -> Any:
    """Return the object or the list that a text holds as JSON or as a Python literal; any other value unchanged."""
    if not isinstance(value, str) or not value.lstrip().startswith(("{", "[")) or len(value) > _MAX_PARSED:
        return value
    readers: Iterable[Any] = (lambda text: json.loads(text, strict=False), ast.literal_eval)
    for read in readers:
        try:
            parsed = read(value.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        return parsed if isinstance(parsed, dict | list) else value
    return value
