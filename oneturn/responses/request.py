"""Convert a Responses request to the inputs of a program.

The type of a signature field decides what it receives: the first ``str`` the question, ``dspy.Image`` and ``dspy.File``
(or lists of them) its attachments, ``dspy.History`` the earlier turns. A ``str`` field named ``system_message``
receives the system and developer messages, a ``list[dict]`` field named ``messages`` the complete chat.
``custom_inputs`` fill the other fields.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Union, get_args, get_origin

import dspy
import pydantic
from mlflow.types.responses import OutputItem, ResponsesAgentRequest

from oneturn.core.fields import validate_field
from oneturn.core.validation import problems_of
from oneturn.errors import RequestError
from oneturn.programs.chat_completions import ChatTurn
from oneturn.responses.call_items import APPROVAL_RESPONSE
from oneturn.responses.chat import to_chat
from oneturn.responses.content import Item, read_content
from oneturn.responses.turns import is_answer, turn_start

_SYSTEM_ROLES = ("system", "developer")


@dataclass(frozen=True)
class Exchange:
    """An earlier question, with the images and files of its messages, and its answer; either may be missing."""

    question: str | None = None
    answer: str | None = None
    images: tuple[tuple[dspy.Image, ...], ...] = ()
    files: tuple[tuple[dspy.File, ...], ...] = ()


@dataclass(frozen=True)
class Conversation:
    """The parsed items of a request.

    Attributes:
        question: the texts of the user messages since the last answer; ``None`` without a text.
        images: the images of each of these messages.
        files: the files of each of these messages.
        history: the exchanges before them, oldest first.
        system_message: the text of the system and developer messages.
    """

    question: str | None
    images: tuple[tuple[dspy.Image, ...], ...] = ()
    files: tuple[tuple[dspy.File, ...], ...] = ()
    history: tuple[Exchange, ...] = ()
    system_message: str = ""


def read_conversation(request: ResponsesAgentRequest) -> Conversation:
    """Parse the ``input`` of a request (OpenAI API reference, "Create a model response").

    The user messages since the last answer are the question. The history leaves out tool calls, their results,
    reasoning and approvals: they are the agent's working state, not conversation.

    Raises:
        RequestError: an image or a file part is invalid.
    """
    items = [item.model_dump() for item in request.input]
    start = turn_start(items)
    exchange = _exchange(item for item in items[start:] if item.get("role") == "user")
    return Conversation(
        question=exchange.question,
        images=exchange.images,
        files=exchange.files,
        history=tuple(_exchanges(items[:start])),
        system_message="\n".join(_texts(item for item in items if item.get("role") in _SYSTEM_ROLES)),
    )


def _exchange(messages: Iterable[Item]) -> Exchange:
    """The question of user messages."""
    contents = [read_content(message) for message in messages]
    texts = ["\n".join(content.texts) for content in contents if content.texts]
    return Exchange(
        question="\n\n".join(texts) if texts else None,
        images=tuple(tuple(content.images) for content in contents),
        files=tuple(tuple(content.files) for content in contents),
    )


def _exchanges(items: Iterable[Item]) -> list[Exchange]:
    exchanges: list[Exchange] = []
    messages: list[Item] = []
    for item in items:
        if item.get("role") == "user":
            messages.append(item)
        elif is_answer(item):
            exchanges.append(replace(_exchange(messages), answer="\n".join(_texts([item]))))
            messages = []
    return [*exchanges, _exchange(messages)] if messages else exchanges


def _texts(items: Iterable[Item]) -> Iterator[str]:
    for item in items:
        yield from read_content(item).texts


SYSTEM = "system_message"
MESSAGES = "messages"
_ITEM: Any = pydantic.TypeAdapter(get_args(ResponsesAgentRequest.model_fields["input"].annotation)[0])
_OUTPUT_ITEM: Any = pydantic.TypeAdapter(OutputItem)
_PART_TYPES = {dspy.Image: "input_image", dspy.File: "input_file"}
_NO_QUESTION = 'The request has no user message; send input=[{"role": "user", "content": "…"}].'
_NO_TEXT = "The question has no text; send an input_text part, or a further user message with the question."


def program_inputs(
    signature: type[dspy.Signature], request: ResponsesAgentRequest, answer_field: str | None = None
) -> dict[str, Any]:
    """Return the values of the signature's input fields, validated and converted to their types.

    Args:
        signature: the program's signature.
        request: the client's request.
        answer_field: the output field that holds earlier answers in a ``dspy.History``.

    Raises:
        RequestError: an input is missing, unknown or of the wrong type, or no field accepts it.
    """
    fields = signature.input_fields
    custom = dict(request.custom_inputs or {})
    if unknown := sorted(set(custom) - set(fields)):
        raise RequestError(
            f"custom_inputs has an unknown field {unknown[0]!r}; known: {', '.join(fields)}.", "custom_inputs"
        )
    is_asked = any(item.model_dump().get("role") == "user" for item in request.input)
    question_inputs, context_inputs = _from_items(signature, request, answer_field)
    if duplicates := sorted(set(custom) & set(question_inputs)):
        raise RequestError(f"{duplicates[0]!r} is set in custom_inputs and in input; send it once.", "custom_inputs")
    values = {**context_inputs, **question_inputs, **custom}
    question = question_field(signature)
    if question is not None and question not in values and fields[question].is_required():
        raise RequestError(_NO_TEXT if is_asked else _NO_QUESTION, "input")
    return {
        name: _coerce(name, field, values) for name, field in fields.items() if name in values or field.is_required()
    }


def to_mlflow_request(fields: Any) -> ResponsesAgentRequest:
    """Return MLflow's request with these fields.

    Raises:
        RequestError: a field is missing or has a wrong type.
    """
    place: tuple[str | int, ...] = ()
    item: Any = None
    try:
        items = fields.get("input") if isinstance(fields, Mapping) else None
        for number, item in enumerate(items if isinstance(items, list) else ()):
            place = ("input", number)  # one by one: the first invalid item ends it
            is_message = not isinstance(item, Mapping) or "role" in item or item.get("type", "message") == "message"
            (_ITEM if is_message else _OUTPUT_ITEM).validate_python(item)
        place, item = (), None
        return ResponsesAgentRequest.model_validate(fields)
    except pydantic.ValidationError as invalid:
        is_verdict = isinstance(item, Mapping) and item.get("type") == APPROVAL_RESPONSE
        if is_verdict and not isinstance(item.get("approve"), bool):
            raise RequestError(describe_invalid_verdict(item), "input") from invalid
        raise RequestError(_describe(invalid, place), "input") from invalid
    except TypeError as error:  # MLflow's own check of a content part looks its type up in a set
        message = "The type of a content part isn't a text; send input_text, input_image or input_file."
        raise RequestError(message, "input") from error


def _describe(error: pydantic.ValidationError, place: tuple[str | int, ...]) -> str:
    """Describe the first error of a request, or of its part at ``place``, that MLflow rejects, with its location."""
    problem = problems_of(error)[0]
    path = [str(part) for part in (*place, *problem["loc"]) if isinstance(part, int) or part.isidentifier()]
    reason = problem["msg"].removeprefix("Value error, ").removesuffix(".")
    return f"{'.'.join(path) or 'request'}: {reason}."


def describe_invalid_verdict(item: Mapping[str, Any]) -> str:
    """Describe an ``mcp_approval_response`` whose ``approve`` isn't a boolean."""
    problem = f"is {item['approve']!r:.80}" if "approve" in item else "is missing"
    return f"The approve of an {APPROVAL_RESPONSE} {problem}; send JSON true or false."


def question_field(signature: type[dspy.Signature]) -> str | None:
    """The name of the input field for the question: the first of type ``str``; ``None`` without one."""
    names = (name for name, field in signature.input_fields.items() if field.annotation is str)
    return next((name for name in names if name != SYSTEM), None)


def message_fields(signature: type[dspy.Signature]) -> dict[str, str | None]:
    """Return the names of the input fields that the messages of a request fill: ``question``, ``history``, ``images``
    and ``files``; ``None`` for those that the signature hasn't."""
    if MESSAGES in signature.input_fields:
        return {"question": MESSAGES, "history": MESSAGES, "images": None, "files": None}
    names = {"history": dspy.History, "images": dspy.Image, "files": dspy.File}
    return {
        "question": question_field(signature),
        **{name: _field_of(signature, kind) for name, kind in names.items()},
    }


def _field_of(signature: type[dspy.Signature], kind: Any) -> str | None:
    """The first field of a type, or of a list of it."""
    fields = signature.input_fields.items()
    return next((n for n, f in fields if kind in _options(f.annotation) or _is_list_of(f.annotation, kind)), None)


def _from_items(
    signature: type[dspy.Signature], request: ResponsesAgentRequest, answer_field: str | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The inputs from the user messages since the last answer, and those from all other items."""
    if MESSAGES in signature.input_fields:
        items = [item.model_dump() for item in request.input]
        return {MESSAGES: to_chat(items, media=issubclass(signature, ChatTurn))}, {}
    conversation = read_conversation(request)
    inputs = _question(signature, conversation)
    for kind, attachments in ((dspy.Image, conversation.images), (dspy.File, conversation.files)):
        taken = _attachments(signature, kind, attachments)
        if not taken and any(attachments) and (name := question_field(signature)) in inputs:
            inputs[name] = f"[{_PART_TYPES[kind].removeprefix('input_')}]\n\n{inputs[name]}"  # the LM can say so
        inputs |= taken
    return inputs, _context(signature, conversation, answer_field)


def _question(signature: type[dspy.Signature], conversation: Conversation) -> dict[str, Any]:
    if conversation.question is None:
        return {}
    if name := question_field(signature):
        return {name: conversation.question}
    fields = ", ".join(signature.input_fields)
    raise RequestError(f"This agent takes no question; send input=[] and custom_inputs with the fields: {fields}.")


def _attachments(signature: type[dspy.Signature], kind: Any, messages: Sequence[tuple[Any, ...]]) -> dict[str, Any]:
    """The images or files of a question's messages, as the input that takes them.

    A field for one takes that of the last message that has any. Without a field for them only those of the last message
    are an error: a client may keep an earlier message that was refused.
    """
    given = [attachments for attachments in messages if attachments]
    if not given:
        return {}
    part = _PART_TYPES[kind]
    name = _field_of(signature, kind)
    if name is None:
        if messages[-1]:
            raise RequestError(f"A content part of type {part!r} isn't supported: this agent has no field for it.")
        return {}
    if _is_list_of(signature.input_fields[name].annotation, kind):
        return {name: [attachment for attachments in given for attachment in attachments]}
    if len(given[-1]) > 1:
        raise RequestError(f"This agent takes one {part}, in {name!r}; a message has {len(given[-1])}.")
    return {name: given[-1][0]}


def _context(signature: type[dspy.Signature], conversation: Conversation, answer_field: str | None) -> dict[str, Any]:
    """The inputs from system messages and earlier exchanges."""
    inputs: dict[str, Any] = {}
    for name, field in signature.input_fields.items():
        if name == SYSTEM and conversation.system_message:
            inputs[name] = conversation.system_message
        elif dspy.History in _options(field.annotation):
            inputs[name] = dspy.History(
                messages=[_turn(signature, each, answer_field) for each in conversation.history]
            )
    return inputs


def _turn(signature: type[dspy.Signature], exchange: Exchange, answer: str | None) -> dict[str, Any]:
    """An exchange as a ``dspy.History`` message, keyed by the signature's field names."""
    question = question_field(signature) or "question"
    turn: dict[str, Any] = {} if exchange.question is None else {question: exchange.question}
    for kind, attachments in ((dspy.Image, exchange.images), (dspy.File, exchange.files)):
        with suppress(RequestError):  # it was refused then
            turn |= _attachments(signature, kind, attachments)
    return turn if exchange.answer is None else {**turn, answer or "answer": exchange.answer}


def _coerce(name: str, field: Any, values: Mapping[str, Any]) -> Any:
    if name not in values:
        missing = _missing(name, field.annotation)
        raise RequestError(missing, "custom_inputs" if missing.startswith("custom_inputs") else "input")
    try:
        return validate_field(field, values[name])
    except pydantic.ValidationError as error:
        problem = problems_of(error)[0]
        path = "".join(f".{part}" for part in problem["loc"])
        reason = f"'{name}{path}' must be of type {_type_name(field.annotation)}: {problem['msg']}."
        raise RequestError(reason, "custom_inputs") from error


def _missing(name: str, annotation: Any) -> str:
    for kind, part in _PART_TYPES.items():
        if kind in _options(annotation) or _is_list_of(annotation, kind):
            return f"The question has no {part} part, required by the field {name!r}."
    return f"custom_inputs has no {name!r}, a required field of type {_type_name(annotation)}."


def _options(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, or the type itself."""
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _is_list_of(annotation: Any, kind: Any) -> bool:
    return any(get_origin(option) is list and get_args(option) == (kind,) for option in _options(annotation))


def _type_name(annotation: Any) -> str:
    plain = isinstance(annotation, type) and not get_args(annotation)
    return annotation.__name__ if plain else str(annotation).replace("typing.", "")
