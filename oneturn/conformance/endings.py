"""Checks of terminal events: output, usage, errors, and the types of the ``openai`` package."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, get_args

from openai.types.responses import Response, ResponseOutputItem, ResponseStreamEvent
from pydantic import BaseModel, ValidationError

from oneturn.conformance.events import Event, integer, is_draft, kind, mapping, objects, same, untyped_error
from oneturn.conformance.items import Item
from oneturn.conformance.rules import Findings, format_value
from oneturn.core.secrets import UNCERTAIN, find_secrets, leaves

_TRACEBACK = re.compile(r'Traceback \(most recent call last\)|File "[^"]+", line \d+|\bat 0x[0-9a-f]{6,}')
_PATH = re.compile(
    r"(?<![\w:/.])/(?:home|root|Users|tmp|usr|opt|var|etc|app|mnt|srv|databricks|Workspace|Volumes|local_disk0)/[\w./-]+"
    r"|\b[A-Za-z]:\\[\w\\.-]+|[\w/-]+/site-packages/|\b[\w/-]+\.py\b:\d+"
)
_LEAKS = {"a traceback": _TRACEBACK, "a server path": _PATH}


def check_ending(events: Sequence[Event], items: Sequence[Item], findings: Findings) -> None:
    """Check the output, usage, reason and error of the terminal events."""
    for position, event in enumerate(events):
        name, response = kind(event), mapping(event.get("response"))
        if name == "error":
            check_error(event if event.get("type") else untyped_error(event), findings, position)
        elif name == "response.failed":
            check_error(response.get("error"), findings, position)
        elif name == "response.incomplete":
            check_reason(response, findings, position)
        if name == "response.completed":
            check_usage(response, findings, position)
        if name in ("response.completed", "response.incomplete", "response.failed"):
            _check_output(name, response, items, findings, position)


def check_usage(response: Mapping[str, Any], findings: Findings, position: int | None = None) -> None:
    """Check that usage is present and adds up."""
    usage = response.get("usage")
    if not isinstance(usage, Mapping):
        findings.add("usage-missing", f"usage is {format_value(usage)}.", position)
        return
    read, written, total = (usage.get(f"{part}_tokens") for part in ("input", "output", "total"))
    counts = [count for count in (read, written, total) if isinstance(count, int) and integer(count)]
    if len(counts) < 3 or min(counts) < 0 or counts[0] + counts[1] != counts[2]:
        findings.add("usage-adds-up", f"input {read!r} + output {written!r} is not total {total!r}.", position)
    for direction in ("input", "output"):
        limit = usage.get(f"{direction}_tokens")
        for name, part in mapping(usage.get(f"{direction}_tokens_details")).items():
            if integer(part) and integer(limit) and not 0 <= part <= limit:
                findings.add("usage-adds-up", f"{name} is {part}, of {limit} {direction} tokens.", position)


def check_reason(response: Mapping[str, Any], findings: Findings, position: int | None = None) -> None:
    """Check that an incomplete response gives its reason."""
    if not mapping(response.get("incomplete_details")).get("reason"):
        findings.add("incomplete-reason", "incomplete_details.reason is missing.", position)


def check_error(error: Any, findings: Findings, position: int | None = None) -> None:
    """Check that an error has a code and a message, and leaks nothing."""
    fields = mapping(error)
    for field in ("code", "message"):
        value = fields.get(field)
        if not isinstance(value, str) or not value.strip():
            findings.add(
                "error-shape", f"{field} is {format_value(value)} in the error {format_value(error)}.", position
            )
    check_leaks(error, findings, position)


def check_leaks(error: Any, findings: Findings, position: int | None = None) -> None:
    """Check that the texts of an error hold no traceback, server path or secret."""
    text = "\n".join(value for _, _, value in leaves(error) if isinstance(value, str))
    for leak, pattern in _LEAKS.items():
        if hit := pattern.search(text):
            findings.add("error-leaks", f"An error contains {leak}: {format_value(hit[0])}", position)
    # Somebody else's endpoint isn't accused for a word after "password:".
    for secret in find_secrets(text, without=UNCERTAIN):
        findings.add("error-leaks", f"An error contains a likely secret ({secret.kind}).", position)


def _check_output(
    name: str, response: Mapping[str, Any], items: Sequence[Item], findings: Findings, position: int
) -> None:
    output = response.get("output")
    done = [item.done for item in sorted(items, key=_order) if item.done is not None]
    if name == "response.failed" and not output:  # OpenAI's failed response needs no output
        return
    ids = [mapping(item).get("id") for item in output] if isinstance(output, list) else []
    lasting = [dict(item) for item in done if item.get("id") in ids or not is_draft(item)]
    if not isinstance(output, list) or not same(output, lasting):
        count = len(output) if isinstance(output, list) else format_value(output)
        message = f"{name} has {count} items, {len(done)} were done; or their contents differ."
        findings.add("terminal-output", message, position)


def _order(item: Item) -> int:
    return item.start if item.output_index is None else item.output_index


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
        else:
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
        for path, problem, value in _problems(invalid, data):
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


def _problems(invalid: ValidationError, data: Any) -> list[tuple[str, Any, Any]]:
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
