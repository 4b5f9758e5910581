"""Tools by name: call them, and render their results and errors for the LM. ``SourcedText``: a result with sources."""

from __future__ import annotations

import bisect
import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import dspy
import pydantic
from mlflow.entities import Document, LiveSpan, SpanType

from oneturn.core.serialization import as_records, jsonable, replace_surrogates
from oneturn.core.steps import ToolCall, ToolResult
from oneturn.core.tracing import child_span
from oneturn.errors import ProgramError
from oneturn.tools.arguments import invalid_arguments, passed_arguments
from oneturn.tools.decorator import MAX_CHARS, options_enforced, options_of
from oneturn.tools.errors import to_lm_error
from oneturn.tools.functions import CLASHING_NAMES, adapt_tool, build_tool

FINISH = "finish"
"""Name of the tool that ends a run; its arguments are the signature's output fields."""

Media: TypeAlias = dspy.Image | dspy.Audio | dspy.File
ToolLike: TypeAlias = Callable[..., Any] | dspy.Tool


class SourcedText(str):
    """A tool's text with its source documents, which the agent can cite by id.

    It is a ``str``, so callers of the tool read the text. The text must contain the ids for the LM to cite them.

        def summarise(topic: str) -> oneturn.SourcedText:
            documents = retriever.search(topic)
            ids = ", ".join(document.id for document in documents)
            return oneturn.SourcedText(f"{summary_of(documents)} Sources: {ids}", documents)

    Args:
        text: the text for the LM.
        documents: the sources; one without an ``id`` can't be cited.
    """

    documents: tuple[Document, ...]

    def __new__(cls, text: str, documents: Iterable[Document] = ()) -> SourcedText:
        instance = super().__new__(cls, text)
        instance.documents = tuple(documents)
        return instance


def toolset(tools: Iterable[ToolLike]) -> dict[str, dspy.Tool]:
    """Return the tools by name.

    Raises:
        ProgramError: two tools have the same name, one is named ``finish``, or one can't be described to an LM.
    """
    by_name: dict[str, dspy.Tool] = {}
    for tool in tools:
        wrapped = adapt_tool(tool) if isinstance(tool, dspy.Tool) else build_tool(tool)
        name = str(wrapped.name)
        if name == FINISH:
            raise ProgramError(
                f"A tool can't be named {FINISH!r}, which is reserved for ending the run. Rename the tool."
            )
        if name in by_name:
            raise ProgramError(f"Two tools are named {name!r}. Rename one of them.")
        by_name[name] = wrapped
    return by_name


def tools_in(module: Any) -> list[dspy.Tool]:
    """Return the ``dspy.Tool``s in a module's ``tools``, a mapping or a sequence; none if it has no ``tools``."""
    tools = getattr(module, "tools", None)
    options = tools.values() if isinstance(tools, Mapping) else tools if isinstance(tools, list | tuple) else ()
    return [tool for tool in options if isinstance(tool, dspy.Tool)]


def run_tool(tools: Mapping[str, dspy.Tool], call: ToolCall) -> ToolResult:
    """Call one tool. An exception, or an unknown tool name, becomes an error result of one short line.

    The LM reads the error and can try something else; the trace's span has the traceback.
    """
    with child_span(call.name, SpanType.TOOL, call.args) as span:
        tool = tools.get(call.name)
        if tool is None:
            names = ", ".join([*tools, FINISH])
            return failed(call, f"there is no tool {call.name!r}; available tools: {names}", span)
        try:
            with options_enforced(options_of(tool)):
                value = _call(tool, call.args)
            result = succeeded(call, value, options_of(tool).max_chars)
        except Exception as error:  # an exception of a user's tool never ends the run
            if span is not None:
                span.record_exception(error)
            invalid = invalid_arguments(tool, call.args) if isinstance(error, pydantic.ValidationError) else None
            return failed(call, invalid or to_lm_error(error), span)
        if span is not None:
            span.set_outputs(result.output)
        return result


def _call(tool: dspy.Tool, args: Mapping[str, Any]) -> Any:
    given = passed_arguments(tool, args)
    if CLASHING_NAMES.isdisjoint(given):
        return tool(**given)
    return tool.func(**given)  # DSPy's own call has parameters of these names


def render_result(value: Any) -> str:
    """Render a tool's value for the LM: documents as ``[id] text``, text unchanged, an image or a file as a
    label, anything else as JSON, tables as their rows.
    """
    value = as_records(value)
    if isinstance(value, str) and value.strip():
        return str(value)
    if isinstance(value, Sequence) and (isinstance(value, str) or not value):  # providers reject an empty message
        return "Nothing was found."
    if isinstance(value, Media):
        return _media_label(value)
    if isinstance(value, list) and any(isinstance(item, Media) for item in value):
        return "\n".join(render_result(item) for item in value)
    if documents := documents_in(value):
        return "\n".join(_format_document(document) for document in documents)
    return json.dumps(jsonable(_with_labels(value)), ensure_ascii=False)


def documents_in(value: Any) -> tuple[Document, ...]:
    """Return the documents of a result: one, a list of them, or those of a ``SourcedText``; otherwise none."""
    if isinstance(value, SourcedText):
        return value.documents
    if isinstance(value, Document):
        return (value,)
    if isinstance(value, Sequence) and value and all(isinstance(item, Document) for item in value):
        return tuple(value)
    return ()


def media_in(value: Any) -> tuple[Media, ...]:
    """Return the images, audio and files of a result, at any depth in lists, objects and models."""
    if isinstance(value, Media):
        return (value,)
    parts = _parts(value)
    parts = list(parts.values()) if isinstance(parts, Mapping) else parts
    return tuple(item for part in parts for item in media_in(part)) if isinstance(parts, list | tuple) else ()


def _parts(value: Any) -> Any:
    """Return a model or a dataclass as an object of its fields' values; other values unchanged."""
    if isinstance(value, pydantic.BaseModel):
        return dict(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return value


def _with_labels(value: Any) -> Any:
    """Return a value with a label in the place of each image, audio or file."""
    if isinstance(value, Media):
        return _media_label(value)
    if not media_in(value):
        return value
    parts = _parts(value)
    if isinstance(parts, Mapping):
        return {key: _with_labels(part) for key, part in parts.items()}
    return [_with_labels(part) for part in parts]


def _media_label(item: Any) -> str:
    kind = type(item).__name__.lower()
    name = getattr(item, "filename", None)
    return f"[{kind}: {name}]" if name else f"[{kind}]"


def succeeded(call: ToolCall, value: Any, max_chars: int = MAX_CHARS) -> ToolResult:
    """Return the result of a call that returned ``value``, cut to ``max_chars``, with its citable documents."""
    value = as_records(value)
    output = render_result(value)
    if len(output) > max_chars:
        value, output = _cut(value, output, max_chars)
    citable = tuple(document for document in documents_in(value) if document.id is not None)
    return ToolResult(call.call_id, call.name, replace_surrogates(output), documents=citable, media=media_in(value))


def _cut(value: Any, output: str, max_chars: int) -> tuple[Any, str]:
    """Cut a value and its text: documents, tables, lists and objects between two entries, anything else anywhere.

    A list in an object is cut between two of its own entries.
    """
    note = f"\n(cut; {len(output)} characters)"
    room = max(0, max_chars - len(note))
    if not isinstance(value, str | Document | Media):
        parts = _parts(value) if media_in(value) else value
        entries = parts if isinstance(parts, Sequence | Mapping) else jsonable(value)
        kept = _leading(entries, room)
        if kept:
            return kept, render_result(kept) + note
        if documents_in(value):
            value = value[:1]
    return value, output[:room] + note


def _leading(entries: Any, room: int) -> Any:
    """The leading entries of a list or an object whose text has at most ``room`` characters; ``None`` for others."""
    if not isinstance(entries, Mapping | Sequence) or isinstance(entries, str):
        return None
    pairs = isinstance(entries, Mapping)
    items: list[Any] = list(entries.items() if isinstance(entries, Mapping) else entries)[:room]  # of a character each
    if not documents_in(entries) and not media_in(entries):
        plain = jsonable(dict(items) if pairs else items)
        if isinstance(plain, dict if pairs else list):
            return _leading_json(plain, room)

    def first(count: int) -> Any:
        return dict(items[:count]) if pairs else items[:count]

    return first(_fitting(lambda count: len(render_result(first(count))), len(items), room))


def _leading_json(value: dict[str, Any] | list[Any], room: int) -> Any:
    """The leading entries of plain JSON. Where none fits, or the next one of an object is a list, with a part of it."""
    pairs = isinstance(value, dict)
    room = max(0, room)
    items: list[Any] = list(value.items() if isinstance(value, dict) else value)[:room]  # of a character each

    def first(count: int, *more: Any) -> Any:
        return dict([*items[:count], *more]) if pairs else [*items[:count], *more]

    def size(kept: Any) -> int:
        return len(json.dumps(kept, ensure_ascii=False))

    count = _fitting(lambda count: size(first(count)), len(items), room)
    if count == len(items):
        return first(count)
    name, inner = items[count] if pairs else (None, items[count])
    if (count == 0 and isinstance(inner, dict)) or ((count == 0 or pairs) and isinstance(inner, list)):
        around = size(first(count, (name, []) if pairs else [])) - len("[]")
        if part := _leading_json(inner, room - around):
            return first(count, (name, part) if pairs else part)
    return first(count)


def _fitting(size: Callable[[int], int], most: int, room: int) -> int:
    """The greatest count whose size fits."""
    return bisect.bisect_right(range(1, most + 1), room, key=size)


def failed(call: ToolCall, reason: str, span: LiveSpan | None = None) -> ToolResult:
    """Return the error result of a failed call."""
    output = replace_surrogates(f"Error: {reason}")
    if span is not None:
        span.set_status("ERROR")
        span.set_outputs(output)
    return ToolResult(call.call_id, call.name, output, is_error=True)


def _format_document(document: Document) -> str:
    return document.page_content if document.id is None else f"[{document.id}] {document.page_content}"
