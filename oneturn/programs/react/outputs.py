"""Validate the outputs of a ``finish`` call, as lenient as DSPy's own parsing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import pydantic

from oneturn.core._dspy import parse_value
from oneturn.core.serialization import jsonable


def validate_outputs(model: type[pydantic.BaseModel], args: Mapping[str, Any]) -> dict[str, Any]:
    """Return the outputs as values of the model's types.

    An output that doesn't validate is converted as DSPy's adapters do: a number becomes text where text is declared,
    JSON text an object, the name of an enum's member that member. An omitted optional output is ``None``.

    Raises:
        ValueError: an output is missing or has the wrong type. The message is one line.
    """
    fields = model.model_fields
    omitted = [name for name, field in fields.items() if field.is_required() and name not in args]
    values = {**{name: None for name in omitted if _is_optional(fields[name].annotation)}, **args}
    try:
        outputs = model.model_validate(values)
    except pydantic.ValidationError as error:
        invalid = {str(detail["loc"][0]) for detail in error.errors()} & set(values)
        converted = {name: _convert(values[name], fields[name].annotation) for name in invalid}
        try:
            outputs = model.model_validate({**values, **converted})
        except pydantic.ValidationError as still:
            detail = still.errors()[0]
            place = ".".join(str(part) for part in detail["loc"])
            raise ValueError(f"{place}: {detail['msg']}") from still
    return {name: getattr(outputs, name) for name in fields}


def _convert(value: Any, annotation: Any) -> Any:
    """Return the value as DSPy parses it; unchanged if DSPy can't."""
    if _is_union(annotation):
        options = [option for option in get_args(annotation) if option is not NoneType]
        annotation = options[0] if len(options) == 1 else annotation
    if value is None:
        return None
    if annotation is str and not isinstance(value, str):
        return json.dumps(jsonable(value), ensure_ascii=False) if isinstance(value, dict | list) else str(value)
    try:
        return parse_value(value, annotation)
    except (ValueError, TypeError):
        return value


def _is_optional(annotation: Any) -> bool:
    return _is_union(annotation) and NoneType in get_args(annotation)


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, UnionType)
