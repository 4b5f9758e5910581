"""Convert inputs and outputs that were read from JSON to the types that the program declares."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Mapping
from typing import Any, get_args

import dspy
import pydantic
from pydantic.fields import FieldInfo

from oneturn.agent import Agent
from oneturn.core.fields import PROMPT_PART, dump_field, field_type, is_untyped, validate_field
from oneturn.core.validation import problems_of
from oneturn.errors import DataError, OneTurnError
from oneturn.programs.react import ReAct
from oneturn.programs.react.trajectory import Turn
from oneturn.programs.signature import signature_of


def output_types(agent: Agent | dspy.Module) -> dict[str, Any]:
    """The output types that an agent's program, or a program, declares; empty if it declares none."""
    program = agent.build() if isinstance(agent, Agent) else agent
    try:
        types = outputs_of(signature_of(program))
    except OneTurnError:
        return {}
    return {**types, "trajectory": list[Turn]} if isinstance(program, ReAct) else types


def outputs_of(signature: type[dspy.Signature]) -> dict[str, Any]:
    """The types of a signature's outputs by name."""
    return {name: field.annotation for name, field in signature.output_fields.items()}


def with_input_types(inputs: Mapping[str, Any], signature: type[dspy.Signature]) -> dict[str, Any]:
    """The inputs in their declared types, as a served program gets them.

    An input without a declared type (``"context, question -> answer"``) is unchanged. A missing value (``None``) of an
    input that can't be ``None`` is left out if the input has a default.

    Raises:
        DataError: a value isn't of its type.
    """
    typed: dict[str, Any] = {}
    for name, value in inputs.items():
        field = signature.input_fields.get(name)
        if field is None or is_untyped(field) or (isinstance(value, str) and PROMPT_PART in value):
            typed[name] = value
            continue
        try:
            typed[name] = _validate_input(field, value)
        except pydantic.ValidationError as error:
            if value is None:
                typed |= {name: None} if field.is_required() else {}
                continue
            problem = problems_of(error)[0]
            place = ".".join(map(str, (name, *problem["loc"])))
            raise DataError(
                f"The input {place!r} is {problem['input']!r:.80}, and its type is "
                f"{inspect.formatannotation(field.annotation)}: {problem['msg']}."
            ) from None
    return typed


def _validate_input(field: FieldInfo, value: Any) -> Any:
    try:
        return validate_field(field, value)
    except pydantic.ValidationError:
        pass
    try:  # an array, or of a class of the same name: the agent's module was loaded twice
        return validate_field(field, dump_field(value))
    except pydantic.ValidationError:  # of a table: JSON text, or a number for a text
        return _convert_strictly(value, field_type(field))


def with_label_types(example: dspy.Example, types: Mapping[str, Any]) -> dspy.Example:
    """The example with each label that has the name of an output in the output's type, as the program returns it.

    A label may be JSON, or the JSON text of a value. One that isn't of the type is unchanged: metrics have labels of
    other kinds, such as a list of accepted texts. So is ``None``: the row has no such label.
    """
    typed = example.copy()
    for name, value in example.labels().items():
        if name in types and value is not None:
            typed[name] = _typed_label(value, types[name])
    return typed


def _typed_label(value: Any, kind: Any) -> Any:
    for given in (value, dump_field(value)):  # the latter if the agent's module was loaded twice
        with contextlib.suppress(pydantic.ValidationError):
            return _convert_strictly(given, kind)
    return value


def with_types(outputs: Mapping[str, Any], types: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs in their declared types; a value that doesn't match its type is unchanged.

    A text may be the JSON text of the value: CSV and Parquet files, and Spark, hold nested values like that.
    """
    return {name: _convert(value, types[name]) if name in types else value for name, value in outputs.items()}


def _convert(value: Any, kind: Any) -> Any:
    try:
        return _convert_strictly(value, kind)
    except pydantic.ValidationError:
        return value


def _convert_strictly(value: Any, kind: Any) -> Any:
    takes_text = kind is str or (str in get_args(kind) and not {int, float, Any} & set(get_args(kind)))
    if takes_text and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)  # a column of a CSV file in which all texts are numbers
    try:
        adapter = pydantic.TypeAdapter(kind)
    except (pydantic.errors.PydanticSchemaGenerationError, pydantic.errors.PydanticUserError):
        return value
    try:
        return adapter.validate_python(value)
    except pydantic.ValidationError:
        if not isinstance(value, str):
            raise
        try:
            return adapter.validate_json(value)
        except pydantic.ValidationError:
            pass
        raise
