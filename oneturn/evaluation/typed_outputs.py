"""Convert outputs that were read from JSON to the types that the program declares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pydantic

from oneturn.agent import Agent
from oneturn.errors import OneTurnError
from oneturn.programs.react import ReAct
from oneturn.programs.react.trajectory import Turn
from oneturn.programs.signature import signature_of


def output_types(agent: Agent) -> dict[str, Any]:
    """The output types that the agent's program declares; empty if it declares none."""
    program = agent.build()
    try:
        types = {name: field.annotation for name, field in signature_of(program).output_fields.items()}
    except OneTurnError:
        return {}
    return {**types, "trajectory": list[Turn]} if isinstance(program, ReAct) else types


def with_types(outputs: Mapping[str, Any], types: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs in their declared types; a value that doesn't match its type is unchanged."""
    return {name: _convert(value, types[name]) if name in types else value for name, value in outputs.items()}


def _convert(value: Any, kind: Any) -> Any:
    try:
        return pydantic.TypeAdapter(kind).validate_python(value)
    except (pydantic.ValidationError, pydantic.errors.PydanticSchemaGenerationError):
        return value
