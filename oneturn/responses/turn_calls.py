"""Read the tool calls of a turn from its items: those of the agent's own tools, and those that the client made."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import dspy
from mlflow.entities import Document

from oneturn.core.serialization import normalise_arguments, read_json
from oneturn.core.steps import FinishedCall
from oneturn.errors import RequestError
from oneturn.programs import Program, program_tools
from oneturn.programs.react.function_names import to_function_name
from oneturn.responses.call_items import part_text
from oneturn.responses.content import Item, file_in, image_in
from oneturn.tools.registry import FINISH

_UNCHANGED = "send all output items back unchanged."
_EMPTY = "(empty)"  # providers reject an empty message


class OwnTools:
    """The names of a program's own tools and of ``finish``, in any spelling that an LM could take for one of them.

    Args:
        program: the program.
    """

    def __init__(self, program: Program):
        self._program = program

    @functools.cached_property
    def _keys(self) -> set[str]:
        names = [*program_tools(self._program), FINISH]
        return {_key(spelling) for name in names for spelling in (name, to_function_name(name))}

    def __contains__(self, name: object) -> bool:
        written = str(name)
        return _key(written) in self._keys or _key(re.split(r"[.:/]", written)[-1]) in self._keys


def _key(name: str) -> str:
    return re.sub(r"[\W_]", "", name.casefold())


@dataclass(frozen=True)
class TurnCall:
    """A tool call in the items of a turn.

    Attributes:
        call_id: its id.
        index: the position of its item in the turn.
        call: the call, with its result if there is one.
        has_output: whether there is one.
    """

    call_id: str
    index: int
    call: FinishedCall
    has_output: bool = False


def read_calls(turn: Iterable[Item], own: OwnTools) -> tuple[list[TurnCall], str]:
    """Read the calls of a turn, in order.

    Args:
        turn: its items, from the user message on.
        own: the agent's own tools. Only their results have documents, which an answer can cite.

    Returns:
        The calls, and the thought after the last one.

    Raises:
        RequestError: an item is malformed.
    """
    thought, calling = "", False
    calls: dict[str, TurnCall] = {}
    for index, item in enumerate(turn):
        kind = item.get("type")
        if kind == "reasoning":
            thought = "".join(text_of(part, "text") for part in _mappings(item, "summary"))
        elif kind == "function_call":
            name = text_of(item, "name")
            made = FinishedCall(name, arguments_of(item), thought, by_client=name not in own, same_step=calling)
            calls[text_of(item, "call_id")] = TurnCall(text_of(item, "call_id"), index, made)
            thought = ""
        elif kind == "function_call_output" and (id := text_of(item, "call_id")) in calls:
            calls[id] = replace(calls[id], call=_with_output(calls[id].call, item), has_output=True)
        calling = kind == "function_call"
    return list(calls.values()), thought


def _with_output(call: FinishedCall, item: Item) -> FinishedCall:
    if not call.by_client:
        documents = tuple(_document(source) for source in _mappings(item, "sources"))
        return replace(call, output=text_of(item, "output"), documents=documents)
    if not isinstance(item.get("output"), list):
        return replace(call, output=text_of(item, "output") or _EMPTY)
    texts: list[str] = []
    media: list[dspy.Image | dspy.File] = []
    for part in _mappings(item, "output"):
        texts.append(part_text(part))
        if isinstance(part.get("text"), str):
            continue
        if part.get("type") not in ("input_image", "input_file"):
            raise RequestError(
                f"The output of the call {text_of(item, 'call_id')!r:.80} has a part of type {part.get('type')!r:.80}; "
                "send input_text, input_image or input_file."
            )
        media.append(image_in(part) if part["type"] == "input_image" else file_in(part))
    return replace(call, output="\n".join(texts) or _EMPTY, media=tuple(media))


def arguments_of(item: Item) -> dict[str, Any]:
    """Return the arguments of a call as they are signed and executed.

    Raises:
        RequestError: they aren't one JSON object in strict JSON.
    """
    try:
        arguments = read_json(text_of(item, "arguments"))
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        raise RequestError(f"The arguments of {text_of(item, 'name')!r:.80} aren't a JSON object; {_UNCHANGED}")
    return normalise_arguments(arguments)


def text_of(item: Item, field: str) -> str:
    """Return a field of an item that is a text.

    Raises:
        RequestError: it isn't.
    """
    value = item.get(field)
    if not isinstance(value, str):
        raise RequestError(
            f"The {field} of {item.get('type', 'a source')!r:.80} is {value!r:.80}, no text; {_UNCHANGED}"
        )
    return value


def _document(source: Item) -> Document:
    fields = {name: text_of(source, name) for name in ("id", "title", "url")}
    return Document(page_content="", metadata={"title": fields["title"], "doc_uri": fields["url"]}, id=fields["id"])


def _mappings(item: Item, field: str) -> list[Item]:
    """A list of objects, which clients may leave out."""
    value = item.get(field) or []
    if not isinstance(value, list) or not all(isinstance(part, Mapping) for part in value):
        raise RequestError(f"The {field} of {item.get('type')!r} is no list of objects; {_UNCHANGED}")
    return value
