"""What a tool takes, declared field by field: a signature's inputs or a pydantic model's fields as its arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_args

import dspy
from pydantic import BaseModel

from oneturn.errors import ProgramError
from oneturn.responses.requests import MESSAGES

_UNWRITABLE = (dspy.Image, dspy.Audio, dspy.File)


@dataclass(frozen=True)
class Argument:
    """One argument of a tool. ``default`` is ``inspect.Parameter.empty`` where it must be given."""

    type: Any
    description: str | None = None
    default: Any = inspect.Parameter.empty


QUESTION = Argument(str, "The question, to be understood on its own.")


def declared(
    call: Callable[[dict[str, Any]], Any], name: str, description: str, arguments: Mapping[str, Argument]
) -> dspy.Tool:
    """A tool that calls ``call`` with its arguments as one dict."""

    def tool(**inputs: Any) -> Any:
        return call(inputs)

    kind = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter(name, kind, annotation=argument.type, default=argument.default)
        for name, argument in arguments.items()
    ]
    tool.__name__ = name
    tool.__doc__ = description
    tool.__annotations__ = {name: argument.type for name, argument in arguments.items()}
    tool.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # inspect reads it
    told = {name: argument.description for name, argument in arguments.items() if argument.description}
    return dspy.Tool(tool, name, description, arg_desc=told)


def of_signature(signature: type[dspy.Signature]) -> dict[str, Argument]:
    """The input fields that an LM can write, as arguments.

    A ``dspy.History`` isn't asked for: each call is a conversation of its own. In the place of a whole chat
    (``messages``) there is its ``question``.

    Raises:
        ProgramError: an input that has no default is one that no LM can write, such as an image.
    """
    arguments = {}
    for name, field in signature.input_fields.items():
        if name == MESSAGES:
            arguments["question"] = QUESTION
        elif _has(field.annotation, _UNWRITABLE):
            if field.is_required():
                raise ProgramError(
                    f"{name!r} of {signature.__name__} is no input that an LM can write; give a default."
                )
        elif not _has(field.annotation, (dspy.History,)):
            arguments[name] = _argument(name, field, (field.json_schema_extra or {}).get("desc"))
    return arguments


def inputs_for(signature: type[dspy.Signature], given: Mapping[str, Any]) -> dict[str, Any]:
    """The program's inputs for a call with these arguments."""
    inputs = dict(given)
    for name, field in signature.input_fields.items():
        if name == MESSAGES:
            inputs[name] = [{"role": "user", "content": inputs.pop("question")}]
        elif _has(field.annotation, (dspy.History,)):
            inputs[name] = dspy.History(messages=[])
    return inputs


def of_model(model: type[BaseModel]) -> dict[str, Argument]:
    """A pydantic model's fields as arguments."""
    return {name: _argument(name, field, field.description) for name, field in model.model_fields.items()}


def _argument(name: str, field: Any, description: str | None) -> Argument:
    # DSPy and pydantic keep what an Annotated type says (a bound, a pattern) beside the type.
    annotated: Any = Annotated
    parts = (field.annotation, *field.metadata)
    annotation = annotated[parts] if field.metadata else field.annotation
    default = inspect.Parameter.empty if field.is_required() else field.get_default(call_default_factory=True)
    return Argument(annotation, None if description == f"${{{name}}}" else description, default)


def _has(annotation: Any, kinds: tuple[Any, ...]) -> bool:
    return annotation in kinds or any(_has(part, kinds) for part in get_args(annotation))
