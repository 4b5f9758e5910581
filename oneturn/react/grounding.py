"""Values that an LM may only take from what it has seen: ids of sources, and ids that tools ask for.

A small model invents an order number as readily as it copies one. What is declared here can't be invented: the
step's JSON schema offers only what stands in the run, and what comes back is checked against it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, get_type_hints

import dspy
import pydantic

_SOURCE = "source-id"
_SEEN = "seen"

Citation = Annotated[str, pydantic.WithJsonSchema({"type": "string", "format": _SOURCE})]
"""The id of a source. Declare an output field as ``list[Citation]`` and the LM can't cite what it hasn't seen."""


@dataclass(frozen=True)
class Seen:
    r"""Marks a tool's ``str`` argument that must occur in the inputs or in a result, as text that matches ``pattern``.

    ``def lookup_order(order_id: Annotated[str, Seen(r"M-\d{4}")])``: while no such text has been seen, the tool
    isn't offered to the LM at all.
    """

    pattern: str

    @property
    def keywords(self) -> dict[str, Any]:
        """The mark as JSON schema keywords."""
        return {"format": _SEEN, "pattern": self.pattern}


def marked(tool: dspy.Tool) -> dspy.Tool:
    """``tool`` with its marks in its JSON schema, which DSPy leaves out of it; ``tool`` itself if it has none."""
    function = tool.func if inspect.isroutine(tool.func) else type(tool.func).__call__
    hints = get_type_hints(function, include_extras=True)
    marks = {name: seen for name, hint in hints.items() for seen in getattr(hint, "__metadata__", ()) if _is_seen(seen)}
    if not marks:
        return tool
    args = {name: {**schema, **(marks[name].keywords if name in marks else {})} for name, schema in tool.args.items()}
    return dspy.Tool(tool.func, tool.name, tool.desc, args, tool.arg_types)


def _is_seen(mark: Any) -> bool:
    return isinstance(mark, Seen)


@dataclass(frozen=True)
class Ground:
    """What a run has seen so far.

    Attributes:
        texts: its inputs and its tools' results.
        sources: the ids of the documents that its tools gave, in the order they came.
    """

    texts: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    def matches(self, pattern: str) -> list[str]:
        """What matches ``pattern`` in the texts, each once, in the order it came."""
        return list(dict.fromkeys(found.group() for text in self.texts for found in re.finditer(pattern, text)))


def cites(schema: Mapping[str, Any]) -> bool:
    """Whether a property's JSON schema is a list of citations."""
    return schema.get("type") == "array" and schema.get("items", {}).get("format") == _SOURCE


def narrowed(schema: Mapping[str, Any], ground: Ground) -> dict[str, Any] | None:
    """An object's schema with what the run has seen as its only choices; ``None`` if a value can't be had at all."""
    properties = {}
    for name, field in schema.get("properties", {}).items():
        if cites(field):
            field = _listed(field, ground.sources)
        elif field.get("format") == _SEEN:
            if not (choices := ground.matches(field["pattern"])):
                return None
            field = _choice(field, choices)
        properties[name] = field
    return {**schema, "properties": properties}


def unseen(schema: Mapping[str, Any], values: Mapping[str, Any], ground: Ground) -> Iterator[str]:
    """What is wrong with ``values``: each one that wasn't seen, told in a line."""
    for name, field in schema.get("properties", {}).items():
        if cites(field):
            known: Iterable[str] = ground.sources
            given = values.get(name) or []
        elif field.get("format") == _SEEN:
            known, given = ground.matches(field["pattern"]), [values.get(name)]
        else:
            continue
        for value in given:
            if value not in known:
                yield f"{name}: {value!r} has not been seen; known: {', '.join(known) or 'none'}"


def _listed(field: Mapping[str, Any], choices: Sequence[str]) -> dict[str, Any]:
    items = {"type": "string", "enum": list(choices)} if choices else {"type": "string"}
    return {**field, "items": items, "maxItems": len(choices)}


def _choice(field: Mapping[str, Any], choices: Sequence[str]) -> dict[str, Any]:
    kept = {key: value for key, value in field.items() if key not in ("format", "pattern")}
    return {**kept, "enum": list(choices)}
