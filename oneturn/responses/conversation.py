"""What a request's items say: the question, what is attached to it, and what came before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import dspy
from mlflow.types.responses import ResponsesAgentRequest

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
    texts: list[str] = field(default_factory=list)
    images: list[dspy.Image] = field(default_factory=list)
    files: list[dspy.File] = field(default_factory=list)


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
