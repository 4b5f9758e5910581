"""``schema_tool``: a tool described by a JSON schema instead of a Python function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import dspy
from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.exceptions import Unresolvable

from oneturn.config.tools import ToolEntry
from oneturn.errors import ToolError
from oneturn.tools.decorator import tool
from oneturn.tools.schemas import plain_schema
from oneturn.toolsets._nested_run import QUESTION, validate_tool

QUESTION_SCHEMA = {
    "type": "object",
    "properties": {"question": {"type": "string", "description": QUESTION.description}},
    "required": ["question"],
}
"""The arguments of a tool that takes a question only."""

_NULL = {"type": "null"}


def schema_tool(
    call: Callable[[dict[str, Any]], Any], name: str, description: str, schema: Mapping[str, Any], entry: ToolEntry
) -> dspy.Tool:
    """Return a tool that validates its arguments against ``schema`` and passes them to ``call``.

    The LM reads each argument's schema unchanged, with one exception. The LM writes every argument, so an optional
    argument without a default also accepts null; it isn't sent then.

    Args:
        call: takes the validated arguments.
        name: the tool's name.
        description: the tool's description, for the LM.
        schema: the JSON schema of all arguments, an object.
        entry: the configuration with the tool's timeout and approval.

    Raises:
        ProgramError: the name or the timeout is invalid.
    """
    validate_tool(name, entry.timeout)
    validator: Any = Draft202012Validator(dict(schema), registry=Registry())  # fetches no reference to an address
    properties, required = schema.get("properties") or {}, set(schema.get("required") or ())
    omit_null = {
        arg for arg, part in properties.items() if arg not in required and not _accepts_null(plain_schema(part))
    }

    def validated_call(**values: Any) -> Any:
        arguments = {arg: value for arg, value in values.items() if value is not None or arg not in omit_null}
        with suppress(Unresolvable):  # the server checks its arguments itself
            for error in validator.iter_errors(arguments):
                path = ".".join(map(str, error.absolute_path))
                raise ToolError(f"{name}: {path + ': ' if path else ''}{error.message}")
        return call(arguments)

    validated_call.__name__, validated_call.__doc__ = name, description
    guarded = tool(validated_call, timeout=entry.timeout, approval=entry.approval, max_chars=entry.max_chars)
    plain = {arg: plain_schema(_resolved(part, schema)) for arg, part in properties.items()}
    args = {arg: _nullable(part, arg in omit_null) for arg, part in plain.items()}
    return dspy.Tool(guarded.func, name, description, args, dict.fromkeys(args, Any))


def _nullable(schema: dict[str, Any], nullable: bool) -> dict[str, Any]:
    if not nullable or "default" in schema:
        return schema
    description = {"description": schema["description"]} if "description" in schema else {}
    rest = {key: value for key, value in schema.items() if key not in ("description", "title")}
    return {**description, "anyOf": [rest, _NULL]}


def _accepts_null(schema: Mapping[str, Any]) -> bool:
    return bool(Draft202012Validator(dict(schema)).is_valid(None)) if "$ref" not in str(schema) else False


def _resolved(part: Any, schema: Mapping[str, Any], parents: tuple[str, ...] = ()) -> Any:
    """Return a part of a schema with its references resolved; a recursive reference becomes any object."""
    if isinstance(part, list):
        return [_resolved(each, schema, parents) for each in part]
    if not isinstance(part, dict):
        return part
    reference = part.get("$ref")
    if isinstance(reference, str):
        if reference in parents or not reference.startswith("#/"):
            return {"type": "object"}
        target: Any = schema
        for key in reference[2:].split("/"):
            target = target[key.replace("~1", "/").replace("~0", "~")]
        rest = {key: value for key, value in part.items() if key != "$ref"}
        return {**_resolved(target, schema, (*parents, reference)), **rest}
    return {key: _resolved(value, schema, parents) for key, value in part.items()}
