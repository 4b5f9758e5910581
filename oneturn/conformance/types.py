"""What is sent, against the types of the ``openai`` package that is installed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, get_args

from openai.types.responses import Response, ResponseOutputItem, ResponseStreamEvent
from pydantic import BaseModel, ValidationError

from oneturn.conformance.reading import Event, kind, mapping, objects
from oneturn.conformance.rules import Findings, shown

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
