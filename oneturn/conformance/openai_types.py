"""Checks of events and responses against the types of the ``openai`` package."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, get_args

from openai.types.responses import Response, ResponseOutputItem, ResponseStreamEvent
from pydantic import BaseModel, ValidationError

from oneturn.conformance.events import Event, kind, mapping, objects
from oneturn.conformance.rules import Findings, format_value

# OpenAI's two reasons are its own limits; a deadline or a server shutdown needs another value.
_REASON = "incomplete_details.reason"
_CODE = "error.code"  # likewise


def check_event_types(events: Sequence[Event], findings: Findings) -> None:
    """Check each event against the types of the ``openai`` package."""
    models = _members_by_type(ResponseStreamEvent)
    for position, event in enumerate(events):
        name = event.get("type")
        if not isinstance(name, str) or not name:
            continue
        if name not in models:
            findings.add("unknown-event", f"The openai package has no event {name}.", position)
        elif name != "error" or findings.contract != "openresponses":  # whose errors are nested
            _check(models[name], event, kind(event), findings, position)
            _check_items(event, findings, position)


def check_response_types(response: Mapping[str, Any], findings: Findings) -> None:
    """Check a response against the types of the ``openai`` package."""
    _check(Response, response, "The response", findings, None)
    _check_items({"response": response}, findings, None)


def _check(
    model: type[BaseModel], data: Mapping[str, Any], name: str, findings: Findings, position: int | None
) -> None:
    try:
        model.model_validate(data, strict=True)
    except ValidationError as invalid:
        missing: list[str] = []
        for path, problem, value in validation_problems(invalid, data):
            if problem["type"] == "missing":
                missing.append(path)
            elif value is None:
                missing.append(f"{path} (null)")
            elif path.endswith(_REASON) and isinstance(value, str):
                findings.add("own-reason", f"The reason is {value!r}.", position)
            elif path.endswith(_CODE) and isinstance(value, str):
                findings.add("own-code", f"The code is {value!r}.", position)
            else:
                findings.add("openai-types", f"{name}: {path}: {problem['msg']}.", position)
        if missing:
            findings.add("openai-fields", f"{name} lacks {', '.join(dict.fromkeys(missing))}.", position)


def validation_problems(invalid: ValidationError, data: Any) -> list[tuple[str, Any, Any]]:
    """Return each problem as path, error and value; for a union, only those of the member that ``type`` selects."""
    problems = [problem for problem in invalid.errors(include_url=False) if problem["loc"]]
    located = []
    for problem in problems:
        if not any(problem["loc"][: len(other)] == other for other in _other_members(problems)):
            path, value = _path(problem["loc"], data)
            located.append((path, problem, value))
    return located


def _other_members(problems: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Return the locations of union members whose ``type`` differs from the value's."""
    tried = defaultdict(list)
    for problem in problems:
        if problem["loc"][-1] == "type" and problem["type"] == "literal_error":
            tried[len(problem["loc"]) - 1].append(problem["loc"][:-1])
    return [loc for locs in tried.values() for loc in locs]


def _path(loc: tuple[Any, ...], data: Any) -> tuple[str, Any]:
    """Return the path in the data, without the type names that pydantic inserts, and the value there."""
    path, current = [], data
    for step in loc:
        if isinstance(current, Mapping) and (step in current or step == loc[-1]):
            path.append(str(step))
            current = current.get(step)
        elif isinstance(current, list) and isinstance(step, int):
            path.append(str(step))
            current = current[step] if step < len(current) else None
    return ".".join(path), current


def _check_items(event: Mapping[str, Any], findings: Findings, position: int | None) -> None:
    models = _members_by_type(ResponseOutputItem)
    items = [mapping(event["item"])] if "item" in event else []
    for item in [*items, *objects(mapping(event.get("response")).get("output"))]:
        name = item.get("type")
        if not isinstance(name, str):
            findings.add("openai-types", f"The type of an item is {format_value(name)}.", position)
        elif name not in models:
            findings.add("unknown-item", f"The openai package has no output item {name}.", position)


@lru_cache(maxsize=8)
def _members_by_type(union: Any) -> dict[str, type[BaseModel]]:
    """Map each ``type`` to its model in one of the unions of the ``openai`` package."""
    members = get_args(get_args(union)[0])
    return {get_args(member.model_fields["type"].annotation)[0]: member for member in members}
