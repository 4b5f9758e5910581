"""A Responses request as the inputs of a program.

Which field takes what is told by its type: the first ``str`` takes the question, ``dspy.Image`` and ``dspy.File`` (or
lists of them) what is attached to it, ``dspy.History`` what came before. A ``str`` field named ``system_message`` takes
the system and developer messages, a ``list[dict]`` field named ``messages`` the whole chat. ``custom_inputs`` fill the
rest.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Annotated, Any, Union, get_args, get_origin

import dspy
import pydantic
from mlflow.types.responses import ResponsesAgentRequest, to_chat_completions_input

from oneturn.errors import RequestError

Item = Mapping[str, Any]
_GUIDING = ("system", "developer")


@dataclass
class Exchange:
    """One earlier question and what was answered; either may be missing."""

    question: str | None = None
    answer: str | None = None


@dataclass(frozen=True)
class Conversation:
    """A request, read.

    Attributes:
        question: the text of the last user message; ``None`` when there is no user message, or no text in it.
        images: the images of that message.
        files: the files of that message.
        history: the exchanges before it, the oldest first.
        system_message: what the system and developer messages say.
    """

    question: str | None
    images: tuple[dspy.Image, ...] = ()
    files: tuple[dspy.File, ...] = ()
    history: tuple[Exchange, ...] = ()
    system_message: str = ""


@dataclass
class _Content:
    texts: list[str] = dataclass_field(default_factory=list)
    images: list[dspy.Image] = dataclass_field(default_factory=list)
    files: list[dspy.File] = dataclass_field(default_factory=list)


def read_conversation(request: ResponsesAgentRequest) -> Conversation:
    """Read a request's ``input`` (OpenAI API reference, "Create a model response").

    The last user message is the question. Tool calls, their results, reasoning and approvals are the agent's own
    notes, not conversation: they aren't part of the history.

    Raises:
        RequestError: an image or a file can't be used.
    """
    items = [item.model_dump() for item in request.input]
    places = [place for place, item in enumerate(items) if item.get("role") == "user"]
    last = places[-1] if places else len(items)
    asked = _read(items[last]) if places else _Content()
    return Conversation(
        question="\n".join(asked.texts) if asked.texts else None,
        images=tuple(asked.images),
        files=tuple(asked.files),
        history=tuple(_exchanges(items[:last])),
        system_message="\n".join(_texts(item for item in items if item.get("role") in _GUIDING)),
    )


def _exchanges(items: Iterable[Item]) -> list[Exchange]:
    found: list[Exchange] = []
    for item in items:
        role = item.get("role")
        if role == "user":
            found.append(Exchange(question="\n".join(_texts([item]))))
        elif role == "assistant" and item.get("status") != "incomplete":
            if not found or found[-1].answer is not None:
                found.append(Exchange())
            found[-1].answer = "\n".join(_texts([item]))
    return found


def _texts(items: Iterable[Item]) -> Iterator[str]:
    for item in items:
        yield from _read(item).texts


def _read(item: Item) -> _Content:
    content = item.get("content")
    if isinstance(content, str):
        return _Content([content])
    found = _Content()
    for part in content or []:
        if "text" in part:
            found.texts.append(str(part["text"]))
        elif part["type"] == "refusal":
            found.texts.append(str(part["refusal"]))
        elif part["type"] == "input_image":
            found.images.append(_image(part))
        elif part["type"] == "input_file":
            found.files.append(_file(part))
    return found


def _image(part: Item) -> dspy.Image:
    url = part.get("image_url")
    if not isinstance(url, str) or not url.startswith(("data:", "https://", "http://")):
        raise RequestError("An input_image needs its image_url: an http(s) address or a data: URI.")
    return dspy.Image(url)


def _file(part: Item) -> dspy.File:
    given = {name: part[name] for name in ("file_data", "file_id", "filename") if part.get(name)}
    data = given.get("file_data")
    if not (data or given.get("file_id")):
        raise RequestError("An input_file needs its file_data (a data: URI) or a file_id that the LM's provider knows.")
    if data and not str(data).startswith("data:"):
        raise RequestError("An input_file's file_data must be a data: URI, such as data:application/pdf;base64,….")
    return dspy.File(**given)


SYSTEM = "system_message"
MESSAGES = "messages"
_ATTACHED = {dspy.Image: "input_image", dspy.File: "input_file"}
_NO_QUESTION = 'The request has no user message; send input=[{"role": "user", "content": "…"}].'
APPROVAL = "mcp_approval_response"
"""The type of an item that answers an approval request."""


def program_inputs(
    signature: type[dspy.Signature], request: ResponsesAgentRequest, answer_field: str | None = None
) -> dict[str, Any]:
    """The signature's inputs, validated and converted to their types.

    Args:
        signature: what the program takes.
        request: what the client sent.
        answer_field: the output field that earlier answers stand in, in a ``dspy.History``.

    Raises:
        RequestError: something is missing, unknown, of the wrong type, or has no field to go into.
    """
    fields = signature.input_fields
    given = dict(request.custom_inputs or {})
    if unknown := sorted(set(given) - set(fields)):
        raise RequestError(f"custom_inputs has an unknown field {unknown[0]!r}; known: {', '.join(fields)}.")
    asked, before = _from_items(signature, request, answer_field)
    if twice := sorted(set(given) & set(asked)):
        raise RequestError(f"{twice[0]!r} stands in custom_inputs and in input; send it once.")
    values = {**before, **asked, **given}
    question = question_field(signature)
    if question is not None and question not in values and fields[question].is_required():
        raise RequestError(_NO_QUESTION)
    return {
        name: _coerced(name, field, values) for name, field in fields.items() if name in values or field.is_required()
    }


def first_problem(error: pydantic.ValidationError) -> str:
    """What is wrong with a request that MLflow doesn't take, and where."""
    problems = error.errors(include_url=False, include_context=False)
    for found in problems:
        item = found["input"]
        if isinstance(item, dict) and item.get("type") == APPROVAL and not isinstance(item.get("approve"), bool):
            return no_verdict(item)
    problem = problems[0]
    place = [str(part) for part in problem["loc"] if isinstance(part, int) or part.isidentifier()]
    return f"{'.'.join(place) or 'request'}: {problem['msg']}."


def no_verdict(item: Mapping[str, Any]) -> str:
    """Why an ``mcp_approval_response`` says neither yes nor no."""
    found = f"is {item['approve']!r:.80}" if "approve" in item else "is missing"
    return f"The approve of an {APPROVAL} {found}; send JSON true or false."


def question_field(signature: type[dspy.Signature]) -> str | None:
    """The input field that takes the question: the first of type ``str``; ``None`` if there is none."""
    names = (name for name, field in signature.input_fields.items() if field.annotation is str)
    return next((name for name in names if name != SYSTEM), None)


def _from_items(
    signature: type[dspy.Signature], request: ResponsesAgentRequest, answer_field: str | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the last user message fills, and what all the rest does."""
    if MESSAGES in signature.input_fields:
        return {MESSAGES: _chat(request)}, {}
    conversation = read_conversation(request)
    asked = _question(signature, conversation)
    for kind, found in ((dspy.Image, conversation.images), (dspy.File, conversation.files)):
        asked |= _attached(signature, kind, found)
    return asked, _before(signature, conversation, answer_field)


def _chat(request: ResponsesAgentRequest) -> list[dict[str, Any]]:
    for item in request.input:
        content = item.model_dump().get("content")
        parts = content if isinstance(content, list) else []
        if other := next((part["type"] for part in parts if "text" not in part), None):
            raise RequestError(f"A content part of type {other!r} can't be answered: this agent reads text only.")
    return to_chat_completions_input(request.input)


def _question(signature: type[dspy.Signature], conversation: Conversation) -> dict[str, Any]:
    if conversation.question is None:
        return {}
    if name := question_field(signature):
        return {name: conversation.question}
    fields = ", ".join(signature.input_fields)
    raise RequestError(f"This agent takes no question; send input=[], and its fields in custom_inputs: {fields}.")


def _attached(signature: type[dspy.Signature], kind: Any, found: tuple[Any, ...]) -> dict[str, Any]:
    if not found:
        return {}
    part = _ATTACHED[kind]
    for name, field in signature.input_fields.items():
        if _is_list_of(field.annotation, kind):
            return {name: list(found)}
        if kind in _options(field.annotation):
            if len(found) > 1:
                raise RequestError(f"This agent takes one {part}, in {name!r}; the question has {len(found)}.")
            return {name: found[0]}
    raise RequestError(f"A content part of type {part!r} can't be answered: this agent has no field for it.")


def _before(signature: type[dspy.Signature], conversation: Conversation, answer_field: str | None) -> dict[str, Any]:
    """What the conversation before the question fills."""
    filled: dict[str, Any] = {}
    for name, field in signature.input_fields.items():
        if name == SYSTEM and conversation.system_message:
            filled[name] = conversation.system_message
        elif dspy.History in _options(field.annotation):
            filled[name] = _history(conversation, question_field(signature), answer_field)
    return filled


def _history(conversation: Conversation, question: str | None, answer: str | None) -> dspy.History:
    return dspy.History(messages=[_turn(exchange, question, answer) for exchange in conversation.history])


def _turn(exchange: Exchange, question: str | None, answer: str | None) -> dict[str, Any]:
    """An exchange by the signature's field names, as ``dspy.History`` has it."""
    said = {question or "question": exchange.question, answer or "answer": exchange.answer}
    return {name: text for name, text in said.items() if text is not None}


def _coerced(name: str, field: Any, given: Mapping[str, Any]) -> Any:
    if name not in given:
        raise RequestError(_lacking(name, field.annotation))
    # DSPy keeps what an Annotated type says (a bound, a pattern) beside the type.
    typed: Any = Annotated
    parts = (field.annotation, *field.metadata)
    annotation = typed[parts] if field.metadata else field.annotation
    try:
        return pydantic.TypeAdapter(annotation).validate_python(given[name])
    except pydantic.ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = "".join(f".{part}" for part in problem["loc"])
        raise RequestError(f"'{name}{place}' must be of type {_named(field.annotation)}: {problem['msg']}.") from error


def _lacking(name: str, annotation: Any) -> str:
    for kind, part in _ATTACHED.items():
        if kind in _options(annotation) or _is_list_of(annotation, kind):
            return f"The question lacks {part} parts, for the field {name!r}."
    return f"custom_inputs lacks {name!r}, of type {_named(annotation)}."


def _options(annotation: Any) -> tuple[Any, ...]:
    """The members of a union; the type itself where it is none."""
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _is_list_of(annotation: Any, kind: Any) -> bool:
    return any(get_origin(option) is list and get_args(option) == (kind,) for option in _options(annotation))


def _named(annotation: Any) -> str:
    plain = isinstance(annotation, type) and not get_args(annotation)
    return annotation.__name__ if plain else str(annotation).replace("typing.", "")
