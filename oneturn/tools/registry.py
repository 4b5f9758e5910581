"""Tools: how they are described to the LM, called, and how their results and failures are told."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import dspy
from dspy.adapters.utils import serialize_for_json
from mlflow.entities import Document, LiveSpan, SpanType

from oneturn.core.serialization import replace_surrogates
from oneturn.core.steps import ToolCall, ToolResult
from oneturn.core.tracing import child_span
from oneturn.errors import ProgramError
from oneturn.tools.decorator import options_of, ready
from oneturn.tools.documents import SourcedText
from oneturn.tools.errors import to_lm_error

FINISH = "finish"
"""The tool that ends a run: its arguments are the signature's output fields."""

ToolLike: TypeAlias = Callable[..., Any] | dspy.Tool


def toolset(tools: Iterable[ToolLike]) -> dict[str, dspy.Tool]:
    """Tools by name.

    Raises:
        ProgramError: two tools share a name, or one takes the reserved name ``finish``.
    """
    by_name: dict[str, dspy.Tool] = {}
    for tool in tools:
        wrapped = tool if isinstance(tool, dspy.Tool) else dspy.Tool(tool)
        name = str(wrapped.name)
        if name == FINISH:
            raise ProgramError(f"A tool can't be named {FINISH!r}: that call ends the run. Give the tool another name.")
        if name in by_name:
            raise ProgramError(f"Two tools are named {name!r}. Give one of them another name.")
        by_name[name] = wrapped
    return by_name


def run_tool(tools: Mapping[str, dspy.Tool], call: ToolCall) -> ToolResult:
    """Call one tool. A failure, or a name that no tool has, becomes an observation of one short line.

    The LM learns what went wrong and can do something else; the traceback stays in the trace's span.
    """
    with child_span(call.name, SpanType.TOOL, call.args) as span:
        tool = tools.get(call.name)
        if tool is None:
            known = ", ".join([*tools, FINISH])
            return failed(call, f"there is no tool {call.name!r}; the tools are: {known}", span)
        try:
            with ready(options_of(tool)):
                value = tool(**call.args)
        except Exception as error:  # whatever a user's tool raises is the LM's to read, never the run's end
            if span is not None:
                span.record_exception(error)
            return failed(call, to_lm_error(error), span)
        result = succeeded(call, value)
        if span is not None:
            span.set_outputs(result.output)
        return result


def render_result(value: Any) -> str:
    """A tool's value as text for the LM: documents as ``[id] text``, text as it is, the rest as JSON."""
    if isinstance(value, str) and value.strip():
        return str(value)
    if isinstance(value, Sequence) and (isinstance(value, str) or not value):  # providers refuse an empty message
        return "Nothing was found."
    if documents := documents_in(value):
        return "\n".join(_told(document) for document in documents)
    return json.dumps(serialize_for_json(value), ensure_ascii=False)


def documents_in(value: Any) -> tuple[Document, ...]:
    """The documents of a result: one document, a list of them, or those of a ``SourcedText``; else none."""
    if isinstance(value, SourcedText):
        return value.documents
    if isinstance(value, Document):
        return (value,)
    if isinstance(value, Sequence) and value and all(isinstance(item, Document) for item in value):
        return tuple(value)
    return ()


def succeeded(call: ToolCall, value: Any) -> ToolResult:
    """The result of a call that gave ``value``, with the documents in it that can be cited."""
    citable = tuple(document for document in documents_in(value) if document.id is not None)
    return ToolResult(call.call_id, call.name, replace_surrogates(render_result(value)), documents=citable)


def failed(call: ToolCall, reason: str, span: LiveSpan | None = None) -> ToolResult:
    """The result of a call that came to nothing, told in one line."""
    output = replace_surrogates(f"Error: {reason}")
    if span is not None:
        span.set_status("ERROR")
        span.set_outputs(output)
    return ToolResult(call.call_id, call.name, output, is_error=True)


def _told(document: Document) -> str:
    return document.page_content if document.id is None else f"[{document.id}] {document.page_content}"
