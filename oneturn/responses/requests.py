"""A Responses request as the inputs of a program."""

from __future__ import annotations

from typing import Any

import dspy
import pydantic
from mlflow.types.responses import ResponsesAgentRequest

from oneturn.errors import RequestError


def program_inputs(signature: type[dspy.Signature], request: ResponsesAgentRequest) -> dict[str, Any]:
    """The signature's inputs: the question from the last user message, the rest from ``custom_inputs``.

    The question goes into the signature's first input field.

    Raises:
        RequestError: there is no question, or ``custom_inputs`` has a field that is unknown, missing or of
            the wrong type.
    """
    fields = signature.input_fields
    question_field = next(iter(fields))
    given = dict(request.custom_inputs or {})
    if unknown := sorted(set(given) - set(fields)):
        raise RequestError(f"custom_inputs has an unknown field {unknown[0]!r}; known: {', '.join(fields)}.")
    if question_field not in given:
        given[question_field] = _question(request)
    return {
        name: _coerced(name, field, given) for name, field in fields.items() if name in given or field.is_required()
    }


def _coerced(name: str, field: Any, given: dict[str, Any]) -> Any:
    if name not in given:
        raise RequestError(f"custom_inputs lacks {name!r}, of type {_named(field.annotation)}.")
    try:
        return pydantic.TypeAdapter(field.annotation).validate_python(given[name])
    except pydantic.ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise RequestError(f"{name!r} must be of type {_named(field.annotation)}: {reason}.") from error


def _question(request: ResponsesAgentRequest) -> str:
    for item in reversed(request.input):
        if getattr(item, "role", None) == "user":
            return _text(getattr(item, "content", ""))
    raise RequestError('The request has no user message; send input=[{"role": "user", "content": "…"}].')


def _text(content: str | list[Any]) -> str:
    if isinstance(content, str):
        return content
    parts = [part if isinstance(part, dict) else part.model_dump() for part in content]
    if other := [part["type"] for part in parts if part["type"] != "input_text"]:
        raise RequestError(f"A content part of type {other[0]!r} can't be answered; send input_text parts.")
    return "\n".join(part["text"] for part in parts)


def _named(annotation: Any) -> str:
    return getattr(annotation, "__name__", str(annotation))
