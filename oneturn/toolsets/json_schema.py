"""A tool that is described by a JSON schema instead of a Python function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import dspy
from jsonschema import Draft202012Validator

from oneturn.config.tools import ToolEntry
from oneturn.errors import ToolError
from oneturn.tools.decorator import tool
from oneturn.toolsets._nested_run import check_declared

_NULL = {"type": "null"}


def foreign_tool(
    call: Callable[[dict[str, Any]], Any], name: str, description: str, schema: Mapping[str, Any], entry: ToolEntry
) -> dspy.Tool:
    """A tool that calls ``call`` with arguments that ``schema`` allows, with what ``entry`` declares of it.

    The LM reads each argument's schema as it is. Steps name every argument, so one that may be left out, and has no
    default, may be null too: then it isn't sent.

    Args:
        schema: the JSON schema of all arguments, an object.

    Raises:
        ProgramError: the name or the timeout can't be used.
    """
    check_declared(name, entry.timeout)
    validator = Draft202012Validator(dict(schema))
    properties, needed = schema.get("properties") or {}, set(schema.get("required") or ())
    left_out = {arg for arg, told in properties.items() if arg not in needed and not _takes_null(told)}

    def foreign(**given: Any) -> Any:
        sent = {arg: value for arg, value in given.items() if value is not None or arg not in left_out}
        for wrong in validator.iter_errors(sent):
            where = ".".join(map(str, wrong.absolute_path))
            raise ToolError(f"{name}: {where + ': ' if where else ''}{wrong.message}")
        return call(sent)

    foreign.__name__, foreign.__doc__ = name, description
    guarded = tool(foreign, timeout=entry.timeout, approval=entry.approval)
    args = {arg: _told(_whole(told, schema), arg in left_out) for arg, told in properties.items()}
    return dspy.Tool(guarded.func, name, description, args, dict.fromkeys(args, Any))


def _told(schema: dict[str, Any], may_be_left_out: bool) -> dict[str, Any]:
    if not may_be_left_out or "default" in schema:
        return schema
    description = {"description": schema["description"]} if "description" in schema else {}
    rest = {key: value for key, value in schema.items() if key not in ("description", "title")}
    return {**description, "anyOf": [rest, _NULL]}


def _takes_null(schema: Mapping[str, Any]) -> bool:
    return bool(Draft202012Validator(dict(schema)).is_valid(None)) if "$ref" not in str(schema) else False


def _whole(part: Any, schema: Mapping[str, Any], inside: tuple[str, ...] = ()) -> Any:
    """A part of a schema with what it refers to in its place; what contains itself is any object there."""
    if isinstance(part, list):
        return [_whole(each, schema, inside) for each in part]
    if not isinstance(part, dict):
        return part
    reference = part.get("$ref")
    if isinstance(reference, str):
        if reference in inside or not reference.startswith("#/"):
            return {"type": "object"}
        found: Any = schema
        for key in reference[2:].split("/"):
            found = found[key.replace("~1", "/").replace("~0", "~")]
        rest = {key: value for key, value in part.items() if key != "$ref"}
        return {**_whole(found, schema, (*inside, reference)), **rest}
    return {key: _whole(value, schema, inside) for key, value in part.items()}
