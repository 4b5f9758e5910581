"""Validate the outputs of a ``finish`` call, as lenient as DSPy's own parsing."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pydantic

from oneturn.core._dspy import parse_value
from oneturn.core.serialization import jsonable

_MAX_REPAIRS = 4  # rounds: text may hold an object whose own fields are to be converted


def validate_outputs(
    model: type[pydantic.BaseModel], args: Mapping[str, Any], fill_omitted: bool = False
) -> dict[str, Any]:
    """Return the outputs as values of the model's types.

    A value that doesn't validate, also one inside an object or a list, is converted as DSPy's adapters do: a number
    becomes text where text is declared, JSON text an object, the name of an enum's member that member, whatever its
    case. A single value becomes a list of one, null an empty list or object. An omitted optional output is ``None``.

    Args:
        model: has a field per output.
        args: the outputs as the LM gave them.
        fill_omitted: whether an omitted list or object is empty too, because the LM was asked for it and omits it.

    Raises:
        ValueError: an output is missing or has the wrong type. The message is one line.
    """
    fields = model.model_fields
    omitted = [name for name, field in fields.items() if field.is_required() and name not in args]
    given = [name for name in omitted if _is_optional(fields[name].annotation)]
    if fill_omitted and args:  # without any output, the call is no answer
        given += [name for name in omitted if _empty(_plain_annotation(fields[name].annotation)) is not None]
    values: Any = {**dict.fromkeys(given), **args}
    for _ in range(_MAX_REPAIRS):
        try:
            outputs = model.model_validate(values)
        except pydantic.ValidationError as error:
            converted = values
            for detail in error.errors(include_url=False):
                converted = _converted_at(converted, detail["loc"], model)
            if _is_same(converted, values):
                detail = error.errors()[0]
                place = ".".join(str(part) for part in detail["loc"])
                raise ValueError(f"{place}: {detail['msg']}") from error
            values = converted
        else:
            return {name: getattr(outputs, name) for name in fields}
    raise ValueError(f"{', '.join(fields)}: the outputs don't have the declared types")


def _converted_at(value: Any, place: Sequence[Any], annotation: Any) -> Any:
    """Return ``value`` with the value at a place in it converted to its declared type."""
    if not place and _is_optional(annotation) and str(value).strip().casefold() in ("", "null", "none"):
        return None
    annotation = _plain_annotation(annotation)
    if not place:
        return _convert(value, annotation)
    key, rest = place[0], place[1:]
    inner = _inner_annotation(annotation, key)
    if inner is None:  # the place continues in a member of a union: the whole value is converted
        return _convert(value, annotation)
    if isinstance(value, Mapping) and key in value:
        return {**value, key: _converted_at(value[key], rest, inner)}
    if isinstance(value, list | tuple) and isinstance(key, int) and key < len(value):
        return [_converted_at(item, rest, inner) if index == key else item for index, item in enumerate(value)]
    return value


def _inner_annotation(annotation: Any, key: Any) -> Any:
    """Return the type of what is at ``key`` in a value of the type; ``None`` if that isn't clear."""
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        for name, field in annotation.model_fields.items():
            if key in (name, field.alias):
                return field.annotation
        return None
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (list, set, frozenset) and args:
        return args[0]
    if origin is tuple and args and isinstance(key, int):
        return args[0] if args[-1] is Ellipsis else args[key] if key < len(args) else None
    return args[1] if origin is dict and len(args) == 2 else None


def _convert(value: Any, annotation: Any) -> Any:
    """Return the value as DSPy parses it; unchanged if neither DSPy nor a rule of ours can."""
    if value is None:
        return _empty(annotation)
    if annotation is str and not isinstance(value, str):
        return json.dumps(jsonable(value), ensure_ascii=False) if isinstance(value, dict | list) else str(value)
    if isinstance(value, str) and (choice := _choice(value, annotation)) is not None:
        return choice
    try:
        return parse_value(value, annotation)
    except (ValueError, TypeError):
        parsed = _parsed(value)
    (item,) = get_args(annotation) if get_origin(annotation) is list and get_args(annotation) else (None,)
    is_item = item is not None and not isinstance(parsed, list) and isinstance(parsed, Mapping) == _is_object(item)
    return [parsed] if is_item else parsed


def _empty(annotation: Any) -> list[Any] | dict[str, Any] | None:
    """Return the empty value of a list or a mapping; ``None`` for other types."""
    kind = get_origin(annotation) or annotation
    return [] if kind in (list, set, frozenset) else {} if kind is dict else None


def _is_object(annotation: Any) -> bool:
    annotation = _plain_annotation(annotation)
    return get_origin(annotation) is dict or (
        isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel)
    )


def _choice(value: str, annotation: Any) -> Any:
    """Return the member of an enum, or the value of a ``Literal``, that a text names in another spelling."""
    spelled = value.strip().strip("'\"").casefold()
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        spellings = {str(key).casefold(): each.value for each in annotation for key in (each.value, each.name, each)}
        return spellings.get(spelled)
    if get_origin(annotation) is Literal:
        return {str(each).casefold(): each for each in get_args(annotation)}.get(spelled)
    return None


def _parsed(value: Any) -> Any:
    """Return the object or the list that a text holds as JSON; any other value unchanged."""
    if not isinstance(value, str) or not value.lstrip().startswith(("{", "[")):
        return value
    try:
        return json.loads(value, strict=False)
    except ValueError:
        return value


def _plain_annotation(annotation: Any) -> Any:
    """Return a type without ``Annotated`` and ``None``, where one type is left."""
    if get_origin(annotation) is Annotated:
        return _plain_annotation(get_args(annotation)[0])
    if _is_union(annotation):
        options = [option for option in get_args(annotation) if option is not NoneType]
        return _plain_annotation(options[0]) if len(options) == 1 else annotation
    return annotation


def _is_same(one: Any, other: Any) -> bool:
    """Whether nothing was converted: ``True`` and ``1`` are equal, but not the same."""
    return bool(one == other and repr(one) == repr(other))


def _is_optional(annotation: Any) -> bool:
    return _is_union(annotation) and NoneType in get_args(annotation)


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, UnionType)
