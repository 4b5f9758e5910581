"""Checks of responses, items and events against the Open Responses specification (openresponses.org, 2026-04-24)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ValidationError, create_model

from oneturn.conformance.events import Event, kind, mapping, objects
from oneturn.conformance.openai_types import validation_problems
from oneturn.conformance.rules import Findings, format_value


def _model(title: str, /, **fields: Any) -> type[BaseModel]:
    """Return a model whose fields are all required; further fields are allowed."""
    definitions: dict[str, Any] = {field: (annotation, ...) for field, annotation in fields.items()}
    return create_model(title, **definitions)


_Object = dict[str, Any]
_Usage = _model(
    "Usage",
    input_tokens=int,
    output_tokens=int,
    total_tokens=int,
    input_tokens_details=_model("InputTokensDetails", cached_tokens=int),
    output_tokens_details=_model("OutputTokensDetails", reasoning_tokens=int),
)
RESOURCE = _model(
    "ResponseResource",
    id=str,
    object=Literal["response"],
    created_at=int,
    completed_at=int | None,
    status=str,
    incomplete_details=_model("IncompleteDetails", reason=str) | None,
    model=str,
    previous_response_id=str | None,
    instructions=str | None,
    output=list[_Object],
    error=_model("Error", code=str, message=str) | None,
    tools=list[_Object],
    tool_choice=str | _Object,
    truncation=Literal["auto", "disabled"],
    parallel_tool_calls=bool,
    text=_model("Text", format=_Object),
    top_p=float,
    presence_penalty=float,
    frequency_penalty=float,
    top_logprobs=int,
    temperature=float,
    reasoning=_model("Reasoning", effort=str | None, summary=str | None) | None,
    usage=_Usage | None,
    max_output_tokens=int | None,
    max_tool_calls=int | None,
    store=bool,
    background=bool,
    service_tier=str,
    metadata=Any,
    safety_identifier=str | None,
    prompt_cache_key=str | None,
)
"""The response resource."""

_Status = Literal["in_progress", "completed", "incomplete"]
ITEMS: dict[str, type[BaseModel]] = {
    "message": _model(
        "Message",
        id=str,
        status=_Status,
        role=Literal["user", "assistant", "system", "developer"],
        content=list[_Object],
    ),
    "function_call": _model("FunctionCall", id=str, call_id=str, name=str, arguments=str, status=_Status),
    "function_call_output": _model(
        "FunctionCallOutput", id=str, call_id=str, output=str | list[_Object], status=_Status
    ),
    "reasoning": _model("Reasoning", id=str, summary=list[_Object]),
    "compaction": _model("Compaction", id=str, encrypted_content=str),
}
"""The items of the specification by type; other types are extensions."""

_WithResponse = {"response": _Object}
_OfItem = {"output_index": int, "item": _Object}
_InItem = {"item_id": str, "output_index": int}
_InContent = {**_InItem, "content_index": int}
_InSummary = {**_InItem, "summary_index": int}
_FIELDS: dict[str, dict[str, Any]] = {
    **{
        f"response.{state}": _WithResponse
        for state in ("created", "queued", "in_progress", "completed", "failed", "incomplete")
    },
    "response.output_item.added": _OfItem,
    "response.output_item.done": _OfItem,
    "response.content_part.added": {**_InContent, "part": _Object},
    "response.content_part.done": {**_InContent, "part": _Object},
    "response.output_text.delta": {**_InContent, "delta": str},
    "response.output_text.done": {**_InContent, "text": str},
    "response.output_text.annotation.added": {**_InContent, "annotation_index": int, "annotation": _Object | None},
    "response.refusal.delta": {**_InContent, "delta": str},
    "response.refusal.done": {**_InContent, "refusal": str},
    "response.reasoning.delta": {**_InContent, "delta": str},
    "response.reasoning.done": {**_InContent, "text": str},
    "response.reasoning_summary_part.added": {**_InSummary, "part": _Object},
    "response.reasoning_summary_part.done": {**_InSummary, "part": _Object},
    "response.reasoning_summary_text.delta": {**_InSummary, "delta": str},
    "response.reasoning_summary_text.done": {**_InSummary, "text": str},
    "response.function_call_arguments.delta": {**_InItem, "delta": str},
    "response.function_call_arguments.done": {**_InItem, "arguments": str},
    "error": {"error": _model("ErrorPayload", type=str, code=str | None, message=str, param=str | None)},
}
EVENTS: dict[str, type[BaseModel]] = {
    name: _model(name, sequence_number=int, **fields) for name, fields in _FIELDS.items()
}
"""The events of the specification by type; other types are extensions."""


def check_specification(events: Iterable[Event], client_tools: Collection[str], findings: Findings) -> None:
    """Check each event of a stream.

    Args:
        events: the stream.
        client_tools: the names of the function tools in the request.
        findings: collects the violations.
    """
    for position, event in enumerate(events):
        name = kind(event)
        if name in EVENTS:
            missing, problems = _problems(EVENTS[name], event)
            if missing or problems:
                findings.add("event-fields", f"{name}: {_describe(missing, problems)}.", position)
        if isinstance(event.get("item"), Mapping):
            _check_item(event["item"], findings, position)
            if name == "response.output_item.done":
                _check_own_call(event["item"], client_tools, findings, position)
        if isinstance(event.get("response"), Mapping):
            _check_resource(event["response"], findings, position)


def check_resource(response: Mapping[str, Any], client_tools: Collection[str], findings: Findings) -> None:
    """Check a response without a stream; the arguments are those of :func:`check_specification`."""
    _check_resource(response, findings, None)
    for item in objects(response.get("output")):
        _check_own_call(item, client_tools, findings, None)


def _check_resource(response: Mapping[str, Any], findings: Findings, position: int | None) -> None:
    missing, problems = _problems(RESOURCE, response)
    if missing:
        findings.add("resource-fields", f"The response lacks {', '.join(missing)}.", position)
    if problems:
        findings.add("resource-types", f"The response: {', '.join(problems)}.", position)
    for item in objects(response.get("output")):
        _check_item(item, findings, position)


def _check_item(item: Mapping[str, Any], findings: Findings, position: int | None) -> None:
    if item.get("type") in ITEMS:
        missing, problems = _problems(ITEMS[item["type"]], item)
        if missing or problems:
            findings.add("item-fields", f"A {item['type']}: {_describe(missing, problems)}.", position)


def _check_own_call(
    item: Mapping[str, Any], client_tools: Collection[str], findings: Findings, position: int | None
) -> None:
    if item.get("type") == "function_call" and item.get("name") not in client_tools:
        findings.add(
            "own-tool-call",
            f"A function_call of {format_value(item.get('name'))}, which isn't a tool of the request.",
            position,
        )


def _problems(model: type[BaseModel], data: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the paths of the missing fields, and a text for each field of a wrong type."""
    try:
        model.model_validate(data, strict=True)
    except ValidationError as invalid:
        missing: list[str] = []
        wrong: dict[str, str] = {}  # one text a field, not one for each member of a union
        for path, problem, value in validation_problems(invalid, mapping(data)):
            if problem["type"] == "missing":
                missing.append(path)
            else:
                wrong.setdefault(path, f"{path} is {format_value(value)}")
        return missing, list(wrong.values())
    return [], []


def _describe(missing: list[str], problems: list[str]) -> str:
    return ", ".join([*([f"it lacks {', '.join(missing)}"] if missing else []), *problems])
