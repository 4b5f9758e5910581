"""The interface of a program: its signatures, predictors and tools, saved with its compiled state."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator
from typing import Any, Literal

import dspy
import pydantic
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

from oneturn.core.fields import field_description, field_type
from oneturn.programs.signature import ending_tool
from oneturn.tools.registry import tools_in

PROGRAM = "self"
"""DSPy's name for the program itself."""


class FieldShape(pydantic.BaseModel):
    """A field of a signature.

    Attributes:
        role: ``"input"`` or ``"output"``.
        json_schema: the JSON schema of its type.
        description: its description in the prompt; ``None`` if none is declared.
    """

    role: Literal["input", "output"]
    json_schema: dict[str, Any]
    description: str | None = None


class SignatureShape(pydantic.BaseModel):
    """A declared signature: its instructions, empty if they are DSPy's default, and its fields in order."""

    instructions: str
    fields: dict[str, FieldShape]


class PredictorShape(pydantic.BaseModel):
    """A predictor: the names of its fields in order."""

    inputs: list[str]
    outputs: list[str]


class ToolShape(pydantic.BaseModel):
    """A tool: its description for the LM, and the JSON schema of each argument."""

    description: str | None
    args: dict[str, Any]


class Interface(pydantic.BaseModel):
    """The signatures, predictors and tools of a program.

    Attributes:
        signatures: by the path of the module or predictor that declares them; ``"self"`` is the program.
        predictors: by name, as in DSPy's state.
        tools: by name; the name of a sub-module's tool starts with the sub-module's path.
    """

    signatures: dict[str, SignatureShape]
    predictors: dict[str, PredictorShape]
    tools: dict[str, ToolShape]

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def signature_sha256(self) -> str:
        """The hash of the signatures and of the predictors' field names."""
        names = {name: [shape.inputs, shape.outputs] for name, shape in self.predictors.items()}
        return _sha256([{place: shape.model_dump() for place, shape in self.signatures.items()}, names])

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def tools_sha256(self) -> str:
        """The hash of the tools, independent of their order."""
        return _sha256({name: shape.model_dump() for name, shape in self.tools.items()})


def interface_of(program: dspy.Module) -> Interface:
    """Return the interface of an uncompiled program; in a compiled one the instructions may be rewritten.

    For a module with a signature and tools, such as a ReAct, its own signature replaces those of its predictors.
    """
    agents = {place: module for place, module in _modules(program) if _is_agent(module)}
    predictors = dict(program.named_predictors())
    signatures = {place: signature_shape(module.signature) for place, module in agents.items()}
    for name, predictor in predictors.items():
        if not any(_is_under(name, place) for place in agents):
            signatures[name] = signature_shape(predictor.signature)
    tools = {
        name if place == PROGRAM else f"{_relative_path(place)}.{name}": _tool_shape(tool)
        for place, module in _modules(program)
        for name, tool in _tools(module)
    }
    shapes = {name: _predictor_shape(predictor.signature) for name, predictor in predictors.items()}
    return Interface(signatures=signatures, predictors=shapes, tools=tools)


def signature_shape(signature: type[dspy.Signature]) -> SignatureShape:
    """Return the shape of a declared signature."""
    fields = {name: _field_shape(name, "input", field) for name, field in signature.input_fields.items()}
    fields |= {name: _field_shape(name, "output", field) for name, field in signature.output_fields.items()}
    default = dspy.Signature(
        f"{', '.join(signature.input_fields)} -> {', '.join(signature.output_fields)}"
    ).instructions
    declared = signature.instructions if signature.instructions != default else ""
    return SignatureShape(instructions=declared, fields=fields)


def _modules(program: dspy.Module) -> Iterator[tuple[str, Any]]:
    return ((place, part) for place, part in program.named_sub_modules() if not isinstance(part, dspy.Predict))


def _is_agent(module: Any) -> bool:
    signature = getattr(module, "signature", None)
    return isinstance(signature, type) and issubclass(signature, dspy.Signature) and hasattr(module, "tools")


def _is_under(predictor: str, place: str) -> bool:
    return place == PROGRAM or predictor.startswith(f"{_relative_path(place)}.")


def _relative_path(place: str) -> str:
    return place.removeprefix(f"{PROGRAM}.")


def _tools(module: Any) -> Iterator[tuple[str, dspy.Tool]]:
    """Yield a module's tools by name, without the one that DSPy creates from the signature."""
    ending = ending_tool(module)
    return ((str(tool.name), tool) for tool in tools_in(module) if tool.name != ending)


def _tool_shape(tool: dspy.Tool) -> ToolShape:
    description = inspect.cleandoc(tool.desc) if tool.desc else None  # Python 3.13 does this itself
    return ToolShape(description=description, args=_json(tool.args or {}))


def _predictor_shape(signature: type[dspy.Signature]) -> PredictorShape:
    return PredictorShape(inputs=list(signature.input_fields), outputs=list(signature.output_fields))


def _field_shape(name: str, role: Literal["input", "output"], field: Any) -> FieldShape:
    return FieldShape(role=role, json_schema=_schema(field_type(field)), description=field_description(name, field))


def _schema(annotation: Any) -> dict[str, Any]:
    try:
        schema: dict[str, Any] = _json(pydantic.TypeAdapter(annotation).json_schema())
    except (PydanticSchemaGenerationError, PydanticUserError):  # a type without a JSON schema
        return {"type": getattr(annotation, "__qualname__", str(annotation))}
    return schema


def _json(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
