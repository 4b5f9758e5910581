"""The terminal response: what it repeats, what it cost, how it failed."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, get_args

from openai.types.responses import Response, ResponseOutputItem, ResponseStreamEvent
from pydantic import BaseModel, ValidationError

from oneturn.conformance.events import Event, integer, kind, mapping, objects, own_error, same
from oneturn.conformance.items import Item
from oneturn.conformance.rules import Findings, shown

_TRACEBACK = re.compile(r'Traceback \(most recent call last\)|File "[^"]+", line \d+|\bat 0x[0-9a-f]{6,}')
_PATH = re.compile(
    r"(?<![\w:/.])/(?:home|root|Users|tmp|usr|opt|var|etc|app|mnt|srv|databricks|Workspace|Volumes|local_disk0)/[\w./-]+"
    r"|\b[A-Za-z]:\\[\w\\.-]+|[\w/-]+/site-packages/|\b[\w/-]+\.py\b:\d+"
)
_SECRET = re.compile(
    r"\bsk-[\w-]{8,}|\bdapi[0-9a-f]{16,}|\bgh[pousr]_\w{16,}|\bAKIA[A-Z0-9]{12,}|\bxox[abp]-[\w-]{10,}"
    r"|\beyJ[\w-]{8,}\.[\w-]{8,}|-----BEGIN [A-Z ]*PRIVATE KEY|(?i:bearer\s+[\w.~+/-]{16,})"
    r"|(?i:(?:password|secret|token|api[_-]?key)\s*[=:]\s*['\"]?[\w-]{8,})"
)
_LEAKS = {"a traceback": _TRACEBACK, "a path of the server": _PATH, "what looks like a secret": _SECRET}


def check_ending(events: Sequence[Event], items: Sequence[Item], found: Findings) -> None:
    """The terminal events: their output, usage, reasons and errors."""
    for place, event in enumerate(events):
        name, response = kind(event), mapping(event.get("response"))
        if name == "error":
            told = event if event.get("type") else own_error(event)
            check_error(told, found, place)
        elif name == "response.failed":
            check_error(response.get("error"), found, place)
        elif name == "response.incomplete":
            check_reason(response, found, place)
        if name == "response.completed":
            check_usage(response, found, place)
        if name in ("response.completed", "response.incomplete", "response.failed"):
            _check_output(name, response, items, found, place)


def check_usage(response: Mapping[str, Any], found: Findings, place: int | None = None) -> None:
    """That usage is there, and adds up."""
    usage = response.get("usage")
    if not isinstance(usage, Mapping):
        found.add("usage-missing", f"usage is {shown(usage)}.", place)
        return
    read, written, total = (usage.get(f"{part}_tokens") for part in ("input", "output", "total"))
    counts = [count for count in (read, written, total) if isinstance(count, int) and integer(count)]
    if len(counts) < 3 or min(counts) < 0 or counts[0] + counts[1] != counts[2]:
        found.add("usage-adds-up", f"{read!r} read and {written!r} written make {total!r}.", place)
    for of in ("input", "output"):
        whole = usage.get(f"{of}_tokens")
        for name, part in mapping(usage.get(f"{of}_tokens_details")).items():
            if integer(part) and integer(whole) and not 0 <= part <= whole:
                found.add("usage-adds-up", f"{name} is {part}, of {whole} {of} tokens.", place)


def check_reason(response: Mapping[str, Any], found: Findings, place: int | None = None) -> None:
    """That an incomplete response says why it is."""
    if not mapping(response.get("incomplete_details")).get("reason"):
        found.add("incomplete-reason", "incomplete_details.reason isn't told.", place)


def check_error(error: Any, found: Findings, place: int | None = None) -> None:
    """That an error says what happened, and nothing that it shouldn't."""
    told = mapping(error)
    for field in ("code", "message"):
        value = told.get(field)
        if not isinstance(value, str) or not value.strip():
            found.add("error-shape", f"{field} is {shown(value)} in the error {shown(error)}.", place)
    check_leaks(error, found, place)


def check_leaks(told: Any, found: Findings, place: int | None = None) -> None:
    """That nothing in an error's texts is for the server's owner only."""
    text = "\n".join(_texts(told))
    for what, pattern in _LEAKS.items():
        if hit := pattern.search(text):
            hidden = f"{hit[0][:6]}…" if pattern is _SECRET else shown(hit[0])
            found.add("error-leaks", f"An error holds {what}: {hidden}", place)


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    nested = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else []
    return [text for entry in nested for text in _texts(entry)]


def _check_output(name: str, response: Mapping[str, Any], items: Sequence[Item], found: Findings, place: int) -> None:
    output = response.get("output")
    done = [item.done for item in sorted(items, key=_place) if item.done is not None]
    if name == "response.failed" and not output:  # OpenAI's failed response needs no output
        return
    if not isinstance(output, list) or not same(output, [dict(item) for item in done]):
        count = len(output) if isinstance(output, list) else shown(output)
        message = f"{name} has {count} items, {len(done)} were done; or they say something else."
        found.add("terminal-output", message, place)


def _place(item: Item) -> int:
    return item.begun if item.place is None else item.place


# OpenAI's two reasons are its own limits; a deadline, or a server that is stopped, needs a word of its own.
_REASON = "incomplete_details.reason"


def check_event_types(events: Sequence[Event], found: Findings) -> None:
    """That each event is what openai's client takes it for."""
    known = _by_type(ResponseStreamEvent)
    for place, event in enumerate(events):
        name = event.get("type")
        if not isinstance(name, str) or not name:
            continue
        if name not in known:
            found.add("unknown-event", f"openai has no event {name}.", place)
        else:
            _check(known[name], event, kind(event), found, place)
            _check_items(event, found, place)


def check_response_types(response: Mapping[str, Any], found: Findings) -> None:
    """That a response is what openai's client takes it for."""
    _check(Response, response, "The response", found, None)
    _check_items({"response": response}, found, None)


def _check(model: type[BaseModel], data: Mapping[str, Any], name: str, found: Findings, place: int | None) -> None:
    try:
        model.model_validate(data, strict=True)
    except ValidationError as invalid:
        missing: list[str] = []
        for path, problem, given in _problems(invalid, data):
            if problem["type"] == "missing":
                missing.append(path)
            elif given is None:
                missing.append(f"{path} (null)")
            elif path.endswith(_REASON) and isinstance(given, str):
                found.add("own-reason", f"The reason is {given!r}.", place)
            else:
                found.add("openai-types", f"{name}: {path}: {problem['msg']}.", place)
        if missing:
            found.add("openai-fields", f"{name} lacks {', '.join(dict.fromkeys(missing))}.", place)


def _problems(invalid: ValidationError, data: Any) -> list[tuple[str, Any, Any]]:
    """The problems as path, problem and value; of a union, only those of the member that was meant."""
    problems = [problem for problem in invalid.errors(include_url=False) if problem["loc"]]
    found = []
    for problem in problems:
        if not any(problem["loc"][: len(other)] == other for other in _not_meant(problems)):
            path, value = _path(problem["loc"], data)
            found.append((path, problem, value))
    return found


def _not_meant(problems: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Where in a union another member was tried: its ``type`` isn't the one that was given."""
    tried = defaultdict(list)
    for problem in problems:
        if problem["loc"][-1] == "type" and problem["type"] == "literal_error":
            tried[len(problem["loc"]) - 1].append(problem["loc"][:-1])
    return [loc for locs in tried.values() for loc in locs]


def _path(loc: tuple[Any, ...], data: Any) -> tuple[str, Any]:
    """The place in the data, without the names of types that pydantic puts between, and what is there."""
    path, here = [], data
    for step in loc:
        if isinstance(here, Mapping) and (step in here or step == loc[-1]):
            path.append(str(step))
            here = here.get(step)
        elif isinstance(here, list) and isinstance(step, int):
            path.append(str(step))
            here = here[step] if step < len(here) else None
    return ".".join(path), here


def _check_items(event: Mapping[str, Any], found: Findings, place: int | None) -> None:
    known = _by_type(ResponseOutputItem)
    items = [mapping(event["item"])] if "item" in event else []
    for item in [*items, *objects(mapping(event.get("response")).get("output"))]:
        name = item.get("type")
        if not isinstance(name, str):
            found.add("openai-types", f"The type of an item is {shown(name)}.", place)
        elif name not in known:
            found.add("unknown-item", f"openai has no output item {name}.", place)


@lru_cache(maxsize=8)
def _by_type(union: Any) -> dict[str, type[BaseModel]]:
    """The members of one of openai's unions by their ``type``."""
    members = get_args(get_args(union)[0])
    return {get_args(member.model_fields["type"].annotation)[0]: member for member in members}
