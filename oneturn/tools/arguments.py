"""The arguments of a tool call: convert them, check them, and leave out those that stand for a default."""

from __future__ import annotations

import enum
import inspect
import json
from collections.abc import Iterator, Mapping
from typing import Any, get_args

import dspy
import jsonschema
import pydantic
from referencing import Registry
from referencing.exceptions import Unresolvable

from oneturn.core.conversion import SchemaConverter, Spellings, is_null_text
from oneturn.core.serialization import jsonable, plain
from oneturn.tools.decorator import options_of
from oneturn.tools.errors import to_lm_error
from oneturn.tools.functions import argument_types

_NO_REGISTRY: Registry[Any] = Registry()  # a reference to an address is never fetched
_FITS = SchemaConverter()


def convert_arguments(tool: dspy.Tool, args: Mapping[str, Any]) -> dict[str, Any]:
    """Return a call's arguments in the types of their schemas, as outputs are converted.

    A value that doesn't fit its schema is converted if it can be: ``"5"`` for a number, JSON text for an object or a
    list, the name of an enum's member. A text ``null`` leaves an argument with a default out. What is returned is what
    is shown, signed and run.
    """
    schemas = tool.args or {}
    if all(name not in schemas or _FITS.fits(value, schemas[name]) for name, value in args.items()):
        return dict(args)
    converter = SchemaConverter(spellings=_enum_names(tool))
    converted: dict[str, Any] = {}
    for name, value in args.items():
        schema = schemas.get(name, {})
        fitting = converter.convert(value, schema)
        if not (is_null_text(fitting) and "default" in schema and not converter.fits(fitting, schema)):
            converted[name] = fitting
    return converted


def passed_arguments(tool: dspy.Tool, args: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that a call passes to the tool's function.

    A null for an optional argument that takes none means that the argument is left out.
    """
    schemas = tool.args or {}
    return {name: value for name, value in args.items() if value is not None or not _omits_null(schemas.get(name))}


def needs_approval(tool: dspy.Tool | None, args: Mapping[str, Any]) -> bool:
    """Return whether a call needs a person's approval, for the arguments that would be passed."""
    return tool is not None and options_of(tool).needs_approval(passed_arguments(tool, args))


def invalid_arguments(tool: dspy.Tool, args: Mapping[str, Any]) -> str | None:
    """Why a tool can't be called with these arguments, as its function's parameters and their schemas tell.

    Returns:
        The reason, for the LM; ``None`` if the call can be run.
    """
    schemas = tool.args or {}
    given = passed_arguments(tool, args)
    try:
        inspect.signature(tool.func).bind(**given)
        for name, value in given.items():
            jsonschema.validate(jsonable(value), schemas.get(name) or {}, registry=_NO_REGISTRY)
    except TypeError as error:
        return to_lm_error(error)
    except jsonschema.ValidationError as error:
        return f"invalid argument {'.'.join(map(str, (name, *error.absolute_path)))!r}: {error.message:.200}"
    except (jsonschema.SchemaError, Unresolvable):  # the tool's own schema is wrong: a call reports it
        return None
    return None


def _omits_null(schema: Mapping[str, Any] | None) -> bool:
    if not schema or schema.get("default") is None:
        return False
    return '"null"' not in json.dumps([schema.get("type"), schema.get("anyOf")], default=str)


def _enum_names(tool: dspy.Tool) -> Spellings:
    """Return the values of each enum in a tool's arguments, with its members' names, which no JSON schema has."""
    members = [list(each) for hint in argument_types(tool).values() for each in _enums(hint, ())]
    return [
        (
            [plain(member.value) for member in each],
            {str(name).casefold(): plain(member.value) for member in each for name in (member.name, member)},
        )
        for each in members
    ]


def _enums(hint: Any, parents: tuple[Any, ...]) -> Iterator[type[enum.Enum]]:
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        yield hint
    inner = get_args(hint)
    if isinstance(hint, type) and issubclass(hint, pydantic.BaseModel) and hint not in parents:
        parents = (*parents, hint)
        inner = tuple(field.annotation for field in hint.model_fields.values())
    for part in inner:
        yield from _enums(part, parents)
