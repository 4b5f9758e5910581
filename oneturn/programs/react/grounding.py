"""Grounding: restrict source ids and tool arguments to values that occur in the run.

Small models often invent values such as order numbers. For arguments and outputs declared with ``Seen`` or
``Citation``, the step's JSON schema offers only values that occur in the run, and the LM's reply is checked against
them.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Any, get_args, get_type_hints

import dspy
import pydantic

from oneturn.core._dspy import inline_references

_SOURCE = "source-id"
_SEEN = "seen"
_SEEN_NUMBERS = "seen-numbers"
_NUMBER = re.compile(r"(?<![\w.,/-])(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?!\w|[.,/-]\d)")
_SMALL = 100

Citation = Annotated[str, pydantic.WithJsonSchema({"type": "string", "format": _SOURCE})]
"""The id of a source. An output field of type ``list[Citation]`` can only cite sources that the run has seen."""


@dataclass(frozen=True)
class Seen:
    r"""Requires that a tool's ``str`` argument occurs in the inputs or in a result, as text that matches ``pattern``.

    Example: ``def lookup_order(order_id: Annotated[str, Seen(r"M-\d{4}")])``. Until a matching text occurs, the tool
    isn't offered to the LM.
    """

    pattern: str

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Any) -> dict[str, Any]:
        """Return the JSON schema keywords of the mark (pydantic's hook for annotations)."""
        return {**handler(core_schema), "format": _SEEN, "pattern": self.pattern}


@dataclass(frozen=True)
class SeenNumbers:
    """Requires that the numbers of a tool's ``str`` argument, an arithmetic expression, occur in the run.

    Example: ``def calculate(expression: Annotated[str, SeenNumbers()])``. Numbers come from the inputs and the results,
    so that an LM can't calculate with those of its examples or with invented ones. Whole numbers up to 100 are always
    accepted: counts stand in questions as words. Until another tool has returned a number, the tool isn't offered to
    the LM; in a program without other tools it is from the start.
    """

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Any) -> dict[str, Any]:
        """Return the JSON schema keywords of the mark (pydantic's hook for annotations)."""
        return {**handler(core_schema), "format": _SEEN_NUMBERS}


def with_annotated_args(tool: dspy.Tool) -> dspy.Tool:
    """Return ``tool`` with the metadata of ``Annotated`` arguments in its JSON schema, which DSPy omits."""
    function = tool.func if inspect.isroutine(tool.func) else type(tool.func).__call__
    hints = get_type_hints(function, include_extras=True)
    annotated_hints = {name: hint for name, hint in hints.items() if name in tool.args and _is_annotated(hint)}
    if not annotated_hints:
        return tool
    schemas = {name: _schema_of(hint) for name, hint in annotated_hints.items()}
    args = {name: {**schema, **schemas.get(name, {})} for name, schema in tool.args.items()}
    return dspy.Tool(tool.func, tool.name, tool.desc, args, tool.arg_types, tool.arg_desc)


def _schema_of(hint: Any) -> dict[str, Any]:
    """Return a type's JSON schema without references, as DSPy does: inside an argument they can't be resolved."""
    schema = pydantic.TypeAdapter(hint).json_schema()
    beside_reference = {"description": schema["description"]} if "description" in schema else {}
    return {**inline_references(schema), **beside_reference}


def _is_annotated(hint: Any) -> bool:
    return hasattr(hint, "__metadata__") or any(_is_annotated(part) for part in get_args(hint))


@dataclass(frozen=True)
class SeenValues:
    """The values that a run has seen so far.

    Attributes:
        texts: the inputs and the tools' results.
        results: the tools' results alone.
        looks_up: whether a tool can return numbers before others calculate with them.
        sources: the ids of the documents that tools returned, in order.
        used: earlier values of ``Seen`` arguments by tool; no value is offered twice.
    """

    texts: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    used: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    results: tuple[str, ...] = ()
    looks_up: bool = True

    @property
    def may_calculate(self) -> bool:
        """Whether a number has been looked up, or no tool can."""
        return not self.looks_up or any(_NUMBER.search(text) for text in self.results)

    def matches(self, pattern: str) -> list[str]:
        """Return the distinct matches of ``pattern`` in the texts, in order."""
        return list(dict.fromkeys(match.group() for text in self.texts for match in re.finditer(pattern, text)))

    def numbers(self) -> dict[Decimal, str]:
        """Return the distinct numbers in the texts, as written first, in order."""
        numbers: dict[Decimal, str] = {}
        for match in (match for text in self.texts for match in _NUMBER.finditer(text)):
            written = match.group().replace(",", "")
            numbers.setdefault(Decimal(written), written)
        return numbers


def is_citation_list(schema: Mapping[str, Any]) -> bool:
    """Return whether a property's JSON schema is a list of citations."""
    return schema.get("type") == "array" and schema.get("items", {}).get("format") == _SOURCE


def citing_fields(signature: type[dspy.Signature]) -> tuple[str, ...]:
    """Return the output fields of type ``list[oneturn.Citation]``."""
    citations: Any = list[Citation]
    return tuple(name for name, field in signature.output_fields.items() if field.annotation == citations)


def has_misplaced_mark(schema: Mapping[str, Any], output: bool) -> bool:
    """Return whether a property's JSON schema has a mark in a place where it isn't supported."""
    if is_citation_list(schema) or (schema.get("format") in (_SEEN, _SEEN_NUMBERS) and not output):
        return False
    text = json.dumps(schema, default=str)
    return any(f'"format": "{mark}"' in text for mark in (_SOURCE, _SEEN, _SEEN_NUMBERS))


def restrict_to_seen(tool: str, schema: Mapping[str, Any], seen_values: SeenValues) -> dict[str, Any] | None:
    """Return a tool's arguments with seen values as the only choices; ``None`` if an argument has no choice.

    If a ``Seen`` argument is the tool's only argument, its earlier values aren't offered again.
    """
    properties = {}
    is_only_argument = len(schema.get("properties", {})) == 1
    for name, field_schema in schema.get("properties", {}).items():
        if is_citation_list(field_schema):
            properties[name] = _with_item_choices(field_schema, seen_values.sources)
        elif field_schema.get("format") == _SEEN:
            used = seen_values.used.get(tool, ()) if is_only_argument else ()
            matches = seen_values.matches(field_schema["pattern"])
            if choices := [value for value in matches if value not in used]:
                properties[name] = _with_choices(field_schema, choices)
            elif name in schema.get("required", ()):
                return None
        elif field_schema.get("format") == _SEEN_NUMBERS:
            if seen_values.may_calculate:
                properties[name] = _with_numbers(field_schema, seen_values.numbers().values())
            elif name in schema.get("required", ()):
                return None
        else:
            properties[name] = field_schema
    return {**schema, "properties": properties}


def needs_numbers(schema: Mapping[str, Any]) -> bool:
    """Return whether a tool can only be called with numbers that the run has seen."""
    properties = schema.get("properties", {})
    return any(properties[name].get("format") == _SEEN_NUMBERS for name in schema.get("required", ()))


def describe_unseen(schema: Mapping[str, Any], values: Mapping[str, Any], seen_values: SeenValues) -> Iterator[str]:
    """Yield a one-line message for each of ``values`` that the run hasn't seen. The LM reads these messages."""
    for name, field_schema in schema.get("properties", {}).items():
        if is_citation_list(field_schema):
            choices: Iterable[str] = seen_values.sources
            field_values = values.get(name) or []
        elif field_schema.get("format") == _SEEN:
            if _is_left_out(name, values, schema):
                continue
            choices, field_values = seen_values.matches(field_schema["pattern"]), [values.get(name)]
        elif field_schema.get("format") == _SEEN_NUMBERS:
            if _is_left_out(name, values, schema):
                continue
            numbers = seen_values.numbers() if seen_values.may_calculate else {}
            choices, field_values = numbers.values(), _unseen_numbers(str(values.get(name)), numbers)
            if not seen_values.may_calculate:
                yield f"{name}: no tool has returned a number yet; look the numbers up first"
        else:
            continue
        for value in field_values:
            if value not in choices:
                yield f"{name}: {value!r} has not been seen; known: {', '.join(choices) or 'none'}"


def _is_left_out(name: str, values: Mapping[str, Any], schema: Mapping[str, Any]) -> bool:
    """Whether an optional argument is missing, or is its default."""
    if name in schema.get("required", ()):
        return False
    return name not in values or values[name] == schema["properties"][name].get("default")


def _with_item_choices(schema: Mapping[str, Any], choices: Sequence[str]) -> dict[str, Any]:
    items = {"type": "string", "enum": list(choices)} if choices else {"type": "string"}
    return {**schema, "items": items, "maxItems": len(choices)}


def _unseen_numbers(expression: str, numbers: Collection[Decimal]) -> list[str]:
    """Return the numbers of an expression that are neither seen nor small whole numbers, nor such as percents."""
    known = {each for number in numbers for each in (number, number / 100, 1 - number / 100, 1 + number / 100)}
    found = {Decimal(text): text for text in re.findall(r"\d+(?:\.\d+)?", expression)}
    small = {number for number in found if number <= _SMALL and number == number.to_integral_value()}
    return [text for number, text in found.items() if number not in known | small]


def _with_numbers(schema: Mapping[str, Any], numbers: Iterable[str]) -> dict[str, Any]:
    """Return the schema of an expression of these numbers and small whole ones, such as ``2 * 3.50 + 1``."""
    choices = "|".join([*(number.replace(".", "[.]") for number in numbers), "[1-9][0-9]?", str(_SMALL)])
    number = f"[(]?({choices})[)]?"
    keywords = {key: value for key, value in schema.items() if key not in ("format", "pattern")}
    return {**keywords, "pattern": f"^{number}( [-+*/] {number}){{1,7}}$"}


def _with_choices(schema: Mapping[str, Any], choices: Sequence[str]) -> dict[str, Any]:
    keywords = {key: value for key, value in schema.items() if key not in ("format", "pattern")}
    return {**keywords, "enum": list(choices)}
