"""JSON schemas in the dialects that LMs' APIs take.

- OpenAI's strict mode wants every object closed and each of its properties required, so that an optional one is
  nullable. It takes some keywords only, and no ``default``, ``oneOf``, ``prefixItems`` and ``uniqueItems``.
- The arguments of function calling may be left out, and take most keywords. Databricks and Gemini document a narrow
  dialect, without ``anyOf``, ``$ref``, ``pattern`` and the like. Gemini refuses each keyword that it doesn't know, such
  as ``additionalProperties``. What the dialect has no form for is written as text into the description of the argument.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from oneturn.core.serialization import read_json
from oneturn.programs.react.tool_list import full_type, full_type_with_descriptions

Schema = Mapping[str, Any]

_KEYWORDS = frozenset(
    {"type", "enum", "description", "pattern", "format", "minItems", "maxItems"}
    | {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
)
_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})
_NOT_NARROW = ("pattern", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_NULL = {"type": "null"}
_ANY = "any value, as JSON text"
_TYPES = frozenset({"type", "enum", "const", "$ref", "anyOf", "oneOf", "allOf", "properties", "prefixItems"})


def strict_schema(schema: Schema) -> tuple[dict[str, Any], bool]:
    """Return a schema as OpenAI's strict mode takes it, and whether strict mode can be on.

    It can't with an open mapping or an ``Any``, which strict mode has no form for.
    """
    dialect = _Dialect(strict=True)
    converted = dialect.convert(schema)
    if definitions := schema.get("$defs"):
        converted["$defs"] = {name: dialect.convert(definition) for name, definition in definitions.items()}
    return converted, not dialect.open_ended


def function_parameters(schema: Schema, narrow: bool = False) -> dict[str, Any]:
    """Return the schema of a function's arguments for function calling.

    Args:
        schema: an object with its ``$defs``.
        narrow: whether the provider takes no ``anyOf``, ``$ref`` and ``pattern``.
    """
    dialect = _Dialect(strict=False, narrow=narrow, definitions=schema.get("$defs", {}))
    converted = dialect.convert(schema)
    if (definitions := schema.get("$defs")) and not narrow:
        converted["$defs"] = {name: dialect.convert(definition) for name, definition in definitions.items()}
    return converted


def is_nullable(schema: Schema) -> bool:
    """Return whether a JSON schema admits ``null``; one without a type admits anything."""
    if "anyOf" in schema or "oneOf" in schema:
        return any(is_nullable(option) for option in schema.get("anyOf") or schema["oneOf"])
    if "enum" in schema:
        return None in schema["enum"]
    kind = schema.get("type")
    return "$ref" not in schema and (kind is None or kind == "null" or (isinstance(kind, list) and "null" in kind))


def is_any(schema: Any) -> bool:
    """Return whether a JSON schema admits any type."""
    return not isinstance(schema, Mapping) or not schema.keys() & _TYPES


def parse_any(value: Any, schema: Any) -> Any:
    """Return an argument of the narrow dialect, where a value of any type is JSON text; the text if it is no JSON."""
    if is_any(schema):
        if not isinstance(value, str):
            return value
        try:
            return read_json(value)
        except ValueError:
            return value
    if isinstance(value, list) and schema.get("type") == "array" and "prefixItems" not in schema:
        return [parse_any(item, schema.get("items", {})) for item in value]
    return value


@dataclass
class _Dialect:
    strict: bool
    narrow: bool = False
    definitions: Schema = field(default_factory=dict)
    open_ended: bool = False
    resolving: tuple[str, ...] = ()

    def convert(self, schema: Any) -> dict[str, Any]:
        if not isinstance(schema, Mapping):  # true: anything
            schema = {}
        if "$ref" in schema:
            return self._reference(schema)
        if "oneOf" in schema or "anyOf" in schema:
            return self._union(schema, schema.get("anyOf") or schema["oneOf"])
        if isinstance(kinds := schema.get("type"), list) and (self.narrow or {"array", "object"} & set(kinds)):
            rest = {key: value for key, value in schema.items() if key not in ("description", "default")}
            return self._union(schema, [_NULL if kind == "null" else {**rest, "type": kind} for kind in kinds])
        if "allOf" in schema:  # pydantic's, around a reference; those of tools are merged before
            merged = {key: value for part in schema["allOf"] for key, value in part.items()}
            return self.convert({**merged, **{key: value for key, value in schema.items() if key != "allOf"}})
        converted = self._keywords(schema)
        if self.narrow and _has_no_narrow_form(schema):
            converted = _with_note(converted, self._type_note(schema))
        if schema.get("type") == "object" or "properties" in schema:
            return {**converted, **self._object(schema)}
        if schema.get("type") == "array" or "prefixItems" in schema:
            return {**converted, **self._array(schema)}
        if not converted.keys() & {"type", "enum"}:
            self.open_ended = True
            return _with_note({"type": "string", **converted}, _ANY) if self.narrow else converted
        return converted

    def _keywords(self, schema: Schema) -> dict[str, Any]:
        converted = {key: value for key, value in schema.items() if key in _KEYWORDS}
        if "const" in schema:
            converted["enum"] = [schema["const"]]
        if converted.get("format") not in _FORMATS:
            mark = converted.pop("format", None)
            if mark == "seen":  # checked in the reply, against values in any spelling
                converted.pop("pattern", None)
        if self.narrow:
            unknown = [key for key in _NOT_NARROW if key in converted]
            unknown += ["format"] if converted.get("format", "date-time") != "date-time" else []
            for key in unknown:
                value = converted.pop(key)
                converted = _with_note(converted, f"{key}: {value}")
            choices = [choice for choice in converted.get("enum", []) if choice is not None]
            converted |= {"enum": choices} if choices else {}
            if not all(isinstance(choice, str) for choice in choices):  # Gemini takes an enum of texts only
                converted = {key: value for key, value in converted.items() if key != "enum"}
                converted = _with_note({"type": "string", **converted}, f"type: {full_type({'enum': choices})}")
        return {**converted, **self._description({**schema, **converted})}

    def _description(self, schema: Schema) -> dict[str, Any]:
        described = {"description": schema["description"]} if "description" in schema else {}
        if "default" in schema and not self.strict and schema["default"] is not None:
            return _with_note(described, f"default: {schema['default']!r}")
        return described

    def _object(self, schema: Schema) -> dict[str, Any]:
        properties = schema.get("properties") or {}
        if (not properties and schema.get("additionalProperties", True)) or schema.get("additionalProperties"):
            self.open_ended = True
            values = schema.get("additionalProperties", True)
            rest = {"additionalProperties": self.convert(values) if isinstance(values, Mapping) else True}
            if self.narrow and not properties:  # not that it has no keys
                return {"type": "object"}
            if self.narrow:
                rest = {}
        else:
            rest = {} if self.narrow else {"additionalProperties": False}
        required = schema.get("required", [])
        converted = {name: self.convert(inner) for name, inner in properties.items()}
        if self.strict:
            for name in converted.keys() - set(required):
                if not is_nullable(properties[name]):
                    converted[name] = _nullable(converted[name])
            required = list(converted)
        elif self.narrow:
            required = [
                name for name in required if is_any(schema := properties.get(name, {})) or not is_nullable(schema)
            ]
        return {"type": "object", "properties": converted, "required": list(required), **rest}

    def _array(self, schema: Schema) -> dict[str, Any]:
        if prefix := schema.get("prefixItems"):
            options: list[Any] = [option for index, option in enumerate(prefix) if option not in prefix[:index]]
            items = options[0] if len(options) == 1 else {"type": "string"} if self.narrow else {"anyOf": options}
            return {
                "type": "array",
                "items": self.convert(items),
                "minItems": schema.get("minItems", len(prefix)),
                "maxItems": schema.get("maxItems", len(prefix)),
            }
        if "items" not in schema:
            self.open_ended = True
            return {"type": "array", "items": self.convert({})}
        return {"type": "array", "items": self.convert(schema["items"])}

    def _union(self, schema: Schema, options: list[Any]) -> dict[str, Any]:
        description = self._description(schema)
        if not self.narrow:
            return {"anyOf": [self.convert(option) for option in options], **description}
        some = [option for option in options if option != _NULL] or [{"type": "string"}]
        converted = [self.convert(option) for option in some]
        if all(each == converted[0] for each in converted):
            return {**converted[0], **description}
        if (shared := some[0].get("properties")) and all(option.get("properties") == shared for option in some):
            required = [name for name in shared if all(name in option.get("required", ()) for option in some)]
            kept = {**self.convert({**some[0], "required": required}), **description}
        else:
            kept = {**description, **_common_type(converted)}
        if kept.get("type") == "number" and all(each.keys() == {"type"} for each in converted):
            return kept
        return _with_note(kept, self._type_note({**schema, "anyOf": some}))

    def _reference(self, schema: Schema) -> dict[str, Any]:
        if not self.narrow:
            return {"$ref": schema["$ref"]}
        name = str(schema["$ref"]).rsplit("/", 1)[-1]
        description = self._description(schema)
        if name in self.resolving:  # a recursive model has no finite schema
            note = self._type_note(self.definitions[name], (name,))
            return _with_note({"type": "object", **description}, f"{name}, {note}")
        if name not in self.definitions:
            return {"type": "object", **description}
        outer, self.resolving = self.resolving, (*self.resolving, name)
        converted = self.convert(self.definitions[name])
        self.resolving = outer
        return {**converted, **description}

    def _type_note(self, schema: Schema, parents: tuple[str, ...] = ()) -> str:
        expanded = _expand(schema, self.definitions, parents)
        return f"type: {full_type_with_descriptions(expanded)}"


def _has_no_narrow_form(schema: Schema) -> bool:
    """Whether the narrow dialect can't say which types the items of a list, or the values of an object, have."""
    prefix, rest = schema.get("prefixItems", []), schema.get("additionalProperties")
    return any(item != prefix[0] for item in prefix) or (isinstance(rest, Mapping) and bool(rest))


def _common_type(schemas: Collection[Schema]) -> dict[str, Any]:
    """Return the type that all of the schemas have, else that of texts, which are converted: Gemini wants a type."""
    kinds = {schema.get("type") for schema in schemas}
    kinds = kinds if "number" not in kinds else kinds - {"integer"}
    kind = kinds.pop() if len(kinds) == 1 else None
    if kind == "array":
        return {"type": kind, "items": _common_type([schema.get("items") or {} for schema in schemas])}
    return {"type": kind or "string"}


def _with_note(schema: Schema, note: str) -> dict[str, Any]:
    description = schema.get("description")
    return {**schema, "description": f"{description} ({note})" if description else note}


def _expand(schema: Any, definitions: Schema, parents: tuple[str, ...]) -> Any:
    """Return a schema with its references resolved, but for those of a model to itself."""
    if isinstance(schema, list):
        return [_expand(each, definitions, parents) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    if "$ref" not in schema:
        return {key: _expand(value, definitions, parents) for key, value in schema.items()}
    name = str(schema["$ref"]).rsplit("/", 1)[-1]
    if name in parents or name not in definitions:
        return schema
    rest = {key: value for key, value in schema.items() if key != "$ref"}
    return {**_expand(definitions[name], definitions, (*parents, name)), **rest}


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    if "anyOf" in schema:
        return {**schema, "anyOf": [*schema["anyOf"], _NULL]}
    description = {"description": schema["description"]} if "description" in schema else {}
    return {"anyOf": [{key: value for key, value in schema.items() if key != "description"}, _NULL], **description}


def _option_for(value: Any, options: Sequence[Schema], definitions: Schema) -> Schema:
    """Return the option of a union that a list or an object is of: the first that has all its keys."""
    for option in options:
        if "$ref" in option:
            option = definitions.get(str(option["$ref"]).rsplit("/", 1)[-1], {})
        if inner := option.get("anyOf") or option.get("oneOf"):
            option = _option_for(value, inner, definitions)
        if isinstance(value, list) and (option.get("type") == "array" or "items" in option):
            return option
        if isinstance(value, Mapping) and value.keys() <= option.get("properties", {}).keys():
            return option
    return {}


def without_nulls(value: Any, schema: Schema, definitions: Schema | None = None) -> Any:
    """Return ``value`` without the ``null``s of optional properties that aren't nullable.

    In strict mode, an LM can only leave a property out by a ``null``; its default applies then.
    """
    definitions = schema.get("$defs", {}) if definitions is None else definitions
    if "$ref" in schema:
        schema = definitions.get(str(schema["$ref"]).rsplit("/", 1)[-1], {})
    if options := schema.get("anyOf") or schema.get("oneOf"):
        schema = _option_for(value, options, definitions)
    if isinstance(value, list):
        return [without_nulls(item, schema.get("items") or {}, definitions) for item in value]
    if not isinstance(value, Mapping):
        return value
    properties, required = schema.get("properties", {}), schema.get("required", [])
    return {
        name: without_nulls(inner, properties.get(name, {}), definitions)
        for name, inner in value.items()
        if inner is not None or name not in properties or name in required or is_nullable(properties[name])
    }
