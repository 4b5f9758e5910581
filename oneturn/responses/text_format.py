"""``text.format`` of a request: the answer's text as JSON of the program's outputs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import dspy
import jsonschema
import pydantic

from oneturn.core.fields import field_description, field_type
from oneturn.core.serialization import plain
from oneturn.errors import RequestError, RunError
from oneturn.responses.request_fields import TextFormat
from oneturn.responses.tool_schema import check_json_schema

_PARAM = "text.format"
_ANNOTATIONS = {"title", "description", "default", "examples", "$schema", "$defs", "definitions", "$id", "$comment"}
_PARTS = {"properties", "items", "additionalProperties"}
_LOCAL = re.compile(r"#/(?:\$defs|definitions)/([^/]+)")
_STRUCTURE = {"type", "properties", "required", "items", "additionalProperties", "enum", "const", "anyOf", "$ref"}


def check_format(text_format: TextFormat, signature: type[dspy.Signature]) -> None:
    """Check that the outputs of a signature always fit a format.

    Raises:
        RequestError: the format is invalid, or the outputs don't fit its schema.
    """
    if text_format.type != "json_schema":
        return
    schema = text_format.json_schema
    if schema is None:
        raise RequestError("text.format has no schema; send a JSON schema of the answer.", f"{_PARAM}.schema")
    try:
        check_json_schema(schema)
    except ValueError as error:
        raise RequestError(f"The contents of text.format.schema {error}.", _PARAM) from error
    outputs = output_schema(signature)
    given = _named_outputs(outputs, _names(schema, signature))
    if problem := _Fit(outputs, schema).misfit(given, schema, "the answer"):
        known = ", ".join(signature.output_fields)
        raise RequestError(
            f"The agent's outputs don't fit text.format.schema: {problem}. It has the outputs {known}; see their "
            "schema at /agent/info.",
            _PARAM,
        )


def formatted_text(text_format: TextFormat, signature: type[dspy.Signature], prediction: dspy.Prediction) -> str:
    """Return the outputs as JSON in the format.

    They fit the format's schema if they fit that of the outputs: :func:`check_format` has compared the two. The
    client's schema itself is never run: it could name addresses to fetch, or patterns that take for ever.

    Raises:
        RunError: they don't fit the schema of the outputs.
    """
    names = list(signature.output_fields)
    if text_format.json_schema is not None:
        names = _names(text_format.json_schema, signature)
    outputs = {name: plain(prediction.get(name)) for name in names if name in signature.output_fields}
    if text_format.json_schema is not None:
        try:
            schema = _named_outputs(output_schema(signature), list(outputs))
            jsonschema.validate(outputs, schema, jsonschema.Draft202012Validator)
        except jsonschema.ValidationError as error:
            problem = f"The outputs don't fit text.format.schema: {error.message:.200}."
            raise RunError(problem, "invalid_output") from error
    return json.dumps(outputs, ensure_ascii=False)


def _named_outputs(schema: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return the schema of some of the outputs, all of them required."""
    properties = {name: schema["properties"][name] for name in names if name in schema["properties"]}
    return {**schema, "properties": properties, "required": list(properties)}


def output_schema(signature: type[dspy.Signature]) -> dict[str, Any]:
    """Return the JSON schema of a signature's outputs, as they are sent."""
    return _fields_schema(signature.output_fields, "serialization")


def input_schema(signature: type[dspy.Signature]) -> dict[str, Any]:
    """Return the JSON schema of a signature's inputs, as ``custom_inputs`` has them."""
    return _fields_schema(signature.input_fields, "validation")


def _fields_schema(fields: Mapping[str, Any], mode: Any) -> dict[str, Any]:
    inputs = [(name, mode, pydantic.TypeAdapter(field_type(field))) for name, field in fields.items()]
    schemas, definitions = pydantic.TypeAdapter.json_schemas(inputs)
    properties = {name: {**schemas[name, mode], **_annotations(name, field)} for name, field in fields.items()}
    required = [name for name, field in fields.items() if field.is_required()]
    return {"type": "object", "properties": properties, "required": required, **definitions}


def _annotations(name: str, field: Any) -> dict[str, Any]:
    description = field_description(name, field)
    return {} if description is None else {"description": description}


def _names(schema: Mapping[str, Any], signature: type[dspy.Signature]) -> list[str]:
    """The outputs that fill a schema: those it names, or all."""
    return list(schema.get("properties") or signature.output_fields)


_MOST_NESTED = 32
_MOST_COMPARED = 3000  # pairs of schemas: options that refer to options grow exponentially


class _Fit:
    """Whether every value of one JSON schema fits another.

    It is conservative: what it doesn't understand doesn't fit.
    """

    def __init__(self, given: Mapping[str, Any], wanted: Mapping[str, Any]):
        self._given_definitions = given.get("$defs") or {}
        self._wanted_definitions = {**(wanted.get("definitions") or {}), **(wanted.get("$defs") or {})}
        self._compared = 0

    def misfit(self, given: Any, wanted: Any, place: str, depth: int = 0) -> str | None:
        """Why a value of the schema ``given`` may not fit ``wanted``; ``None`` if it always does."""
        self._compared += 1
        if self._compared > _MOST_COMPARED:
            return f"the schema has more than {_MOST_COMPARED} parts, references resolved"
        given, wanted = _resolve(given, self._given_definitions), _resolve(wanted, self._wanted_definitions)
        if wanted is True or wanted == {}:
            return None
        if depth > _MOST_NESTED:
            return f"{place} is nested too deep"
        if not isinstance(wanted, Mapping) or not isinstance(given, Mapping):
            return f"{place} is not allowed"
        for limit in sorted(set(wanted) - _STRUCTURE - _ANNOTATIONS):
            if limit not in given or given[limit] != wanted[limit]:
                return f"{place} has a limit ({limit}) that the agent doesn't guarantee"
        if options := given.get("anyOf") or given.get("oneOf"):
            problems = [self.misfit(option, wanted, place, depth + 1) for option in options]
            return next((problem for problem in problems if problem), None)
        if options := wanted.get("anyOf"):
            problems = [self.misfit(given, option, place, depth + 1) for option in options]
            return None if None in problems else problems[0]
        return _type_misfit(given, wanted, place) or self._parts_misfit(given, wanted, place, depth)

    def _parts_misfit(self, given: Mapping[str, Any], wanted: Mapping[str, Any], place: str, depth: int) -> str | None:
        own, properties = given.get("properties") or {}, wanted.get("properties") or {}
        if _PARTS & wanted.keys() and not _types(given) and _values(given) is None:
            return f"{place} may be of any type"
        for name in wanted.get("required") or ():
            if name not in (given.get("required") or ()):
                return f"{place} has no {name!r}"
        for name in properties.keys() & own.keys():
            if problem := self.misfit(own[name], properties[name], repr(name), depth + 1):
                return problem
        keys, rest = given.get("additionalProperties"), wanted.get("additionalProperties")
        if keys:  # the object may have any keys, those that the schema names among them
            for name in sorted(properties.keys() - own.keys()):
                if problem := self.misfit(keys, properties[name], repr(name), depth + 1):
                    return problem
        if isinstance(rest, Mapping):
            others = [own[name] for name in sorted(own.keys() - properties.keys())] + ([keys] if keys else [])
            for other in others:
                if problem := self.misfit(other, rest, f"another key of {place}", depth + 1):
                    return problem
        if rest is False:
            if extra := sorted(set(own) - set(properties)):
                return f"{place} has {extra[0]!r}, which the schema doesn't allow"
            if keys:
                return f"{place} may have any keys, which the schema doesn't allow"
        if "items" in wanted and given.get("type") == "array":
            return self.misfit(given.get("items", True), wanted["items"], f"an item of {place}", depth + 1)
        return None


def _type_misfit(given: Mapping[str, Any], wanted: Mapping[str, Any], place: str) -> str | None:
    values, allowed = _values(given), _values(wanted)
    if allowed is not None and (values is None or any(value not in allowed for value in values)):
        return f"{place} may have a value that isn't one of those allowed"
    types, own = _types(wanted), _types(given)
    if types and not (own and all(name in types or (name == "integer" and "number" in types) for name in own)):
        return f"{place} is of type {' or '.join(own) or 'any'}, not {' or '.join(types)}"
    return None


def _values(schema: Mapping[str, Any]) -> list[Any] | None:
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _types(schema: Mapping[str, Any]) -> list[str]:
    types = schema.get("type") or []
    return [types] if isinstance(types, str) else list(types)


def _resolve(schema: Any, definitions: Mapping[str, Any]) -> Any:
    for _ in range(_MOST_NESTED):
        if not isinstance(schema, Mapping) or "$ref" not in schema:
            return schema
        if schema.keys() - _ANNOTATIONS - {"$ref"}:  # keywords beside a reference apply as well
            return False
        found = _LOCAL.fullmatch(str(schema["$ref"]))
        schema = definitions.get(found[1], False) if found else False
    return False
