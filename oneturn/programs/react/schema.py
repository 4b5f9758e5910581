"""The JSON schema of a step: one object out of a union of typed tool calls and ``finish``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import dspy
import pydantic

from oneturn.errors import ProgramError
from oneturn.programs.react.grounding import SeenValues, misplaced, narrowed, unseen
from oneturn.tools.registry import FINISH

MOST_AT_ONCE = 8
"""Calls that one step may ask for together."""


class StepSchema:
    """What the LM may write as its next step, for a signature and a set of tools.

    Everything here is computed once, at construction; an instance is read-only and shared by all runs.

    Args:
        signature: the user's signature; its output fields are the arguments of ``finish``.
        tools: the tools by name.
        thoughts: whether a step begins with a ``thought``.
        parallel: whether a step may ask for several calls at once.

    Raises:
        ProgramError: a ``Citation`` or ``Seen`` stands where it would not be heeded.
    """

    def __init__(
        self, signature: type[dspy.Signature], tools: Mapping[str, dspy.Tool], thoughts: bool, parallel: bool = False
    ):
        self.thoughts = thoughts
        self.parallel = parallel
        self._outputs = _outputs_model(signature)
        finish = self._outputs.model_json_schema()
        self._defs: dict[str, Any] = finish.pop("$defs", {})
        self._calls = {name: _object(tool.args or {}) for name, tool in tools.items()}
        self._calls[FINISH] = _object(finish.get("properties", {}))
        self._check_marks()
        self._described = {name: _first_paragraph(tool.desc) for name, tool in tools.items()}
        self._described[FINISH] = "End the run with the final outputs."

    @property
    def names(self) -> frozenset[str]:
        """Every name that a step may call, ``finish`` included."""
        return frozenset(self._calls)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the final outputs."""
        return tuple(self._outputs.model_fields)

    def json_schema(self, allowed: Iterable[str], ground: SeenValues = SeenValues()) -> dict[str, Any]:
        """JSON schema of a step.

        Args:
            allowed: the names that it may call; their order is always the declared one.
            ground: what the run has seen; a tool that needs something unseen is left out.
        """
        permitted = frozenset(allowed)
        calls = {
            name: _object({"name": {"type": "string", "enum": [name]}, "args": args})
            for name, schema in self._calls.items()
            if name in permitted and (args := narrowed(name, schema, ground)) is not None
        }
        properties: dict[str, Any] = {"thought": {"type": "string"}} if self.thoughts else {}
        properties["tool_call"] = _any_of(calls.values())
        if self.parallel and (others := [call for name, call in calls.items() if name != FINISH]):
            properties["parallel_calls"] = {"type": "array", "items": _any_of(others), "maxItems": MOST_AT_ONCE - 1}
        schema = _object(properties)
        return {**schema, "$defs": self._defs} if self._defs else schema

    def ungrounded_value(self, name: str, args: Mapping[str, Any], ground: SeenValues) -> str | None:
        """What is wrong with a call's arguments, in one line: a value that the run hasn't seen; ``None`` if nothing."""
        return next(unseen(self._calls.get(name, {}), args, ground), None)

    def validate(self, args: Mapping[str, Any], ground: SeenValues) -> dict[str, Any]:
        """The final outputs of a ``finish`` call, as the signature types them.

        Raises:
            ValueError: an output is missing, of the wrong type, or cites what wasn't seen; in one line.
        """
        try:
            outputs = self._outputs.model_validate(args)
        except pydantic.ValidationError as error:
            detail = error.errors()[0]
            place = ".".join(str(part) for part in detail["loc"])
            raise ValueError(f"{place}: {detail['msg']}") from error
        if wrong := self.ungrounded_value(FINISH, args, ground):
            raise ValueError(wrong)
        return {name: getattr(outputs, name) for name in type(outputs).model_fields}

    def description(self) -> str:
        """The tools as the prompt lists them: one line each, then a line for every described argument."""
        return "\n".join(self._describe(name, schema["properties"]) for name, schema in self._calls.items())

    def _check_marks(self) -> None:
        heeded = "Citation is heeded in list[oneturn.Citation] only, Seen in a tool's plain str argument only"
        for name, call in self._calls.items():
            for field, told in call["properties"].items():
                if misplaced(told, output=name == FINISH):
                    raise ProgramError(f"{name}: {field!r} can't be checked against what was seen: {heeded}.")
        if misplaced(self._defs, output=True):
            raise ProgramError(f"{', '.join(self._defs)}: a model can't be checked against what was seen: {heeded}.")

    def _describe(self, name: str, args: Mapping[str, Any]) -> str:
        signature = ", ".join(f"{arg}: {type_name(schema)}" for arg, schema in args.items())
        lines = [f"- {name}({signature}): {self._described[name]}"]
        lines += [f"    {arg}: {schema['description']}" for arg, schema in args.items() if schema.get("description")]
        return "\n".join(lines)


def _outputs_model(signature: type[dspy.Signature]) -> type[pydantic.BaseModel]:
    fields: dict[str, Any] = {}
    annotated: Any = Annotated
    for name, field in signature.output_fields.items():
        description = (field.json_schema_extra or {}).get("desc")
        told = None if description == f"${{{name}}}" else description
        default = ... if field.is_required() else field.get_default(call_default_factory=True)
        # DSPy keeps what an Annotated type says (a bound, a pattern, a mark) beside the type.
        parts = (field.annotation, *field.metadata)
        annotation = annotated[parts] if field.metadata else field.annotation
        fields[name] = (annotation, pydantic.Field(default, description=told))
    return pydantic.create_model(f"{signature.__name__}Outputs", **fields)


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: {k: v for k, v in schema.items() if k != "title"} for name, schema in properties.items()}
    return {"type": "object", "properties": kept, "required": list(kept), "additionalProperties": False}


def _any_of(options: Iterable[dict[str, Any]]) -> dict[str, Any]:
    found = list(options)
    return found[0] if len(found) == 1 else {"anyOf": found}


def type_name(schema: Mapping[str, Any]) -> str:
    """A JSON schema's type in a word or two, as the LM and a person read it."""
    if "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema["enum"])
    if "anyOf" in schema:
        return " | ".join(type_name(option) for option in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {type_name(schema.get('items', {}))}"
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1]
    return str(schema.get("type", "any"))


def _first_paragraph(text: str | None) -> str:
    return " ".join((text or "").strip().split("\n\n")[0].split())
