"""MLflow traces of runs: the tool calls that stand in them, and spans for runs whose own spans are elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import mlflow
from mlflow.entities import Span, SpanType, Trace

Fields = dict[str, Any]


def record_of_trace(trace: Trace) -> list[Fields]:
    """The tool calls of a trace's ``TOOL`` spans, with what ``RETRIEVER`` spans below them found.

    A retriever that stands below no tool counts as one.
    """
    spans = {span.span_id: span for span in trace.data.spans}
    calls: dict[str, Fields] = {}
    for span in sorted(spans.values(), key=lambda each: each.start_time_ns):
        if span.span_type == SpanType.TOOL:
            calls[span.span_id] = _call(span)
        elif span.span_type == SpanType.RETRIEVER:
            above = next((each for each in _above(span, spans) if each in calls), span.span_id)
            call = calls.setdefault(above, _call(span))
            call["sources"] += [_source(found) for found in span.outputs or [] if isinstance(found, Mapping)]
    return list(calls.values())


def tell_of(calls: Sequence[Mapping[str, Any]]) -> None:
    """Write spans below the active one for the tool calls of a run that happened elsewhere, behind an endpoint."""
    for call in calls:
        with mlflow.start_span(str(call["name"]), SpanType.TOOL) as span:
            span.set_inputs(call["arguments"])
            if call.get("sources"):
                with mlflow.start_span("retrieve", SpanType.RETRIEVER) as found:
                    found.set_inputs(call["arguments"])
                    found.set_outputs(passages(call))
            span.set_outputs(call["output"])


def passages(call: Mapping[str, Any]) -> list[Fields]:
    """What a tool call found, in MLflow's form: each has its line ``[id] …`` of the output, or the first all of it."""
    output, sources = str(call.get("output") or ""), call.get("sources") or ()
    lines = {f"[{found['id']}]": "" for found in sources}
    for line in output.splitlines():
        mark = line.partition(" ")[0]
        if mark in lines:
            lines[mark] = line.partition(" ")[2]
    texts = list(lines.values()) if all(lines.values()) else [output, *[""] * (len(lines) - 1)]
    return [
        {"page_content": text, "metadata": {"doc_uri": found["url"], "title": found["title"]}, "id": found["id"]}
        for text, found in zip(texts, {found["id"]: found for found in sources}.values(), strict=True)
    ]


def _call(span: Span) -> Fields:
    return {"name": span.name, "arguments": span.inputs, "output": span.outputs, "sources": []}


def _above(span: Span, spans: Mapping[str, Span]) -> Iterator[str]:
    parent = span.parent_id
    while parent is not None and parent in spans:
        yield parent
        parent = spans[parent].parent_id


def _source(found: Mapping[str, Any]) -> dict[str, str]:
    metadata = found.get("metadata") or {}
    known = str(found.get("id") or metadata.get("doc_uri") or "")
    return {
        "id": known,
        "title": str(metadata.get("title") or known),
        "url": str(metadata.get("doc_uri") or known),
    }
