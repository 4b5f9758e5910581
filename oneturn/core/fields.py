"""Type, description, default and values of a field: of a signature, or of a pydantic model.

A field is a pydantic ``FieldInfo``. Whether it is required is ``field.is_required()``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import dspy
from pydantic import TypeAdapter
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic.fields import FieldInfo

from oneturn.core.serialization import jsonable

PROMPT_PART = "<<CUSTOM-TYPE-START-IDENTIFIER>>"
"""What DSPy writes an image or a file into a prompt with; it reads such a text again as an image or a file."""


def is_untyped(field: FieldInfo) -> bool:
    """Return whether a field of a signature was declared without a type, as in ``"context, question -> answer"``."""
    extra = field.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("IS_TYPE_UNDEFINED"))


def field_type(field: FieldInfo) -> Any:
    """Return the type of a field with its metadata: pydantic keeps a bound or a pattern apart from the annotation."""
    return field.rebuild_annotation()


def field_description(name: str, field: FieldInfo) -> str | None:
    """Return the declared description of a field; ``None`` if there is none.

    DSPy keeps a ``desc`` in ``json_schema_extra``, and ``${name}`` there if none is declared.
    """
    extra = field.json_schema_extra
    if not isinstance(extra, dict) or "desc" not in extra:
        return field.description
    declared: Any = extra["desc"]
    return None if declared == f"${{{name}}}" else declared


def field_default(field: FieldInfo) -> Any:
    """Return the default of a field that isn't required; a ``default_factory`` is called each time."""
    return field.get_default(call_default_factory=True)


def validate_field(field: FieldInfo, value: Any) -> Any:
    """Return a value, as it is in JSON too, in the type of its field; unchanged if pydantic doesn't know the type.

    Raises:
        ValidationError: the value isn't of the type.
    """
    try:
        adapter = _adapter(field_type(field))
    except (PydanticSchemaGenerationError, PydanticUserError):
        return value
    return adapter.validate_python(value)


def dump_field(value: Any) -> Any:
    """Convert a field's value to JSON types that :func:`validate_field` reads back.

    DSPy's own types, such as ``dspy.Image``, become their fields: pydantic writes them as parts of a prompt.
    """
    if isinstance(value, dspy.Type | dspy.History):
        return {name: dump_field(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        return {jsonable(key): dump_field(inner) for key, inner in value.items()}
    return [dump_field(inner) for inner in value] if isinstance(value, list | tuple) else jsonable(value)


def _adapter(annotation: Any) -> TypeAdapter[Any]:
    try:
        return _cached_adapter(annotation)
    except TypeError:  # an annotation that can't be hashed
        return TypeAdapter(annotation)


@cache
def _cached_adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation)


def json_types(annotation: Any) -> frozenset[str]:
    """Return the JSON types of a type's values, such as ``{"array", "null"}``; empty if they aren't known."""
    try:
        return _json_types(annotation)
    except TypeError:  # an annotation that can't be hashed
        return _json_types.__wrapped__(annotation)


@cache
def _json_types(annotation: Any) -> frozenset[str]:
    if isinstance(annotation, type) and issubclass(annotation, dspy.Type):  # dspy.Image reads an address, too
        return frozenset()
    try:
        schema = TypeAdapter(annotation).json_schema()
    except (PydanticSchemaGenerationError, PydanticUserError):
        return frozenset()
    definitions: Mapping[str, Any] = schema.get("$defs", {})
    options = [schema, *schema.get("anyOf", []), *schema.get("oneOf", [])]
    resolved = [definitions.get(option.get("$ref", "").removeprefix("#/$defs/"), option) for option in options]
    if any("type" not in option for option in resolved[1:] or resolved):  # any value
        return frozenset()
    return frozenset(option["type"] for option in resolved if "type" in option)
