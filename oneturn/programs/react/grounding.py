"""Values that an LM may only take from what it has seen: ids of sources, and ids that tools ask for.

A small model invents an order number as readily as it copies one. What is declared here can't be invented: the
step's JSON schema offers only what stands in the run, and what comes back is checked against it.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, get_args, get_type_hints

import dspy
import pydantic
from dspy.adapters.types.tool import _resolve_json_schema_reference as resolved

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

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Any) -> dict[str, Any]:
        """The mark as JSON schema keywords (pydantic's hook for annotations)."""
        return {**handler(core_schema), "format": _SEEN, "pattern": self.pattern}


def annotated(tool: dspy.Tool) -> dspy.Tool:
    """``tool`` with what its arguments' ``Annotated`` types say in its JSON schema, which DSPy leaves out of it."""
    function = tool.func if inspect.isroutine(tool.func) else type(tool.func).__call__
    hints = get_type_hints(function, include_extras=True)
    told = {name: hint for name, hint in hints.items() if name in tool.args and _is_annotated(hint)}
    if not told:
        return tool
    schemas = {name: _schema_of(hint) for name, hint in told.items()}
    args = {name: {**schema, **schemas.get(name, {})} for name, schema in tool.args.items()}
    return dspy.Tool(tool.func, tool.name, tool.desc, args, tool.arg_types)


def _schema_of(hint: Any) -> dict[str, Any]:
    """A type's JSON schema without references, as DSPy's own: below an argument they would point nowhere."""
    schema = pydantic.TypeAdapter(hint).json_schema()
    beside_reference = {"description": schema["description"]} if "description" in schema else {}
    return {**resolved(schema), **beside_reference}


def _is_annotated(hint: Any) -> bool:
    return hasattr(hint, "__metadata__") or any(_is_annotated(part) for part in get_args(hint))


@dataclass(frozen=True)
class SeenValues:
    """What a run has seen so far.

    Attributes:
        texts: its inputs and its tools' results.
        sources: the ids of the documents that its tools gave, in the order they came.
        used: values that a tool's ``Seen`` argument has had, by tool; none is offered twice.
    """

    texts: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    used: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def matches(self, pattern: str) -> list[str]:
        """What matches ``pattern`` in the texts, each once, in the order it came."""
        return list(dict.fromkeys(found.group() for text in self.texts for found in re.finditer(pattern, text)))


def cites(schema: Mapping[str, Any]) -> bool:
    """Whether a property's JSON schema is a list of citations."""
    return schema.get("type") == "array" and schema.get("items", {}).get("format") == _SOURCE


def citing_fields(signature: type[dspy.Signature]) -> tuple[str, ...]:
    """The output fields of type ``list[oneturn.Citation]``."""
    cited: Any = list[Citation]
    return tuple(name for name, field in signature.output_fields.items() if field.annotation == cited)


def misplaced(schema: Mapping[str, Any], output: bool) -> bool:
    """Whether a property's JSON schema has a mark where it would be passed over in silence."""
    if cites(schema) or (schema.get("format") == _SEEN and not output):
        return False
    text = json.dumps(schema, default=str)
    return any(f'"format": "{mark}"' in text for mark in (_SOURCE, _SEEN))


def narrowed(tool: str, schema: Mapping[str, Any], ground: SeenValues) -> dict[str, Any] | None:
    """A tool's arguments with what the run has seen as their only choices; ``None`` if one can't be had at all.

    Where a ``Seen`` argument is the only one, what it has been before isn't offered again.
    """
    properties = {}
    alone = len(schema.get("properties", {})) == 1
    for name, told in schema.get("properties", {}).items():
        if cites(told):
            properties[name] = _listed(told, ground.sources)
        elif told.get("format") == _SEEN:
            used = ground.used.get(tool, ()) if alone else ()
            if not (choices := [value for value in ground.matches(told["pattern"]) if value not in used]):
                return None
            properties[name] = _choice(told, choices)
        else:
            properties[name] = told
    return {**schema, "properties": properties}


def unseen(schema: Mapping[str, Any], values: Mapping[str, Any], ground: SeenValues) -> Iterator[str]:
    """What is wrong with ``values``: each one that wasn't seen, told in a line."""
    for name, told in schema.get("properties", {}).items():
        if cites(told):
            known: Iterable[str] = ground.sources
            given = values.get(name) or []
        elif told.get("format") == _SEEN:
            known, given = ground.matches(told["pattern"]), [values.get(name)]
        else:
            continue
        for value in given:
            if value not in known:
                yield f"{name}: {value!r} has not been seen; known: {', '.join(known) or 'none'}"


def _listed(told: Mapping[str, Any], choices: Sequence[str]) -> dict[str, Any]:
    items = {"type": "string", "enum": list(choices)} if choices else {"type": "string"}
    return {**told, "items": items, "maxItems": len(choices)}


def _choice(told: Mapping[str, Any], choices: Sequence[str]) -> dict[str, Any]:
    kept = {key: value for key, value in told.items() if key not in ("format", "pattern")}
    return {**kept, "enum": list(choices)}
