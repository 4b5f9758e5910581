"""Describe how a program differs from the program that a compiled state was made for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from oneturn.core.secrets import leaves
from oneturn.core.text_diff import paragraphs, render_paragraph
from oneturn.programs.react.tool_list import type_name
from oneturn.programs.state.interface import PROGRAM, Interface, PredictorShape, SignatureShape, ToolShape


def differences(compiled: Interface, program: Interface) -> list[str]:
    """Return what changed from the compiled program to ``program``: fields, instructions and tools, one line each."""
    changes = [
        difference
        for place in {**compiled.signatures, **program.signatures}
        for difference in _signatures(place, compiled.signatures.get(place), program.signatures.get(place))
    ]
    declared_fields = {
        name for shapes in (compiled, program) for shape in shapes.signatures.values() for name in shape.fields
    }
    for name in {**compiled.predictors, **program.predictors}:
        changes += _predictors(name, compiled.predictors.get(name), program.predictors.get(name), declared_fields)
    for name in {**compiled.tools, **program.tools}:
        changes += _tools(name, compiled.tools.get(name), program.tools.get(name))
    return changes


def _signatures(place: str, old: SignatureShape | None, new: SignatureShape | None) -> Iterator[str]:
    where = "" if place == PROGRAM else f"{place}: "
    if old is None or new is None:
        yield f"the signature of {place!r} was {'added' if old is None else 'removed'}"
        return
    if old.instructions.strip() != new.instructions.strip():
        changes = [
            render_paragraph(part) for part in paragraphs(old.instructions, new.instructions) if _has_changed(part)
        ]
        yield f"{where}the declared instructions were changed: {' … '.join(changes)}"
    for name in {**old.fields, **new.fields}:
        if name not in new.fields:
            field = old.fields[name]
            yield f"{where}{field.role} {name!r} ({type_name(field.json_schema)}) was removed"
        elif name not in old.fields:
            field = new.fields[name]
            yield f"{where}{field.role} {name!r} ({type_name(field.json_schema)}) was added"
        else:
            yield from _fields(where, name, old, new)
    common = [name for name in old.fields if name in new.fields]
    if common != [name for name in new.fields if name in old.fields]:
        yield f"{where}the order of the fields changed: {', '.join(common)} became {', '.join(new.fields)}"


def _fields(where: str, name: str, old: SignatureShape, new: SignatureShape) -> Iterator[str]:
    before, after = old.fields[name], new.fields[name]
    if before.role != after.role:
        yield f"{where}{name!r} was an {before.role}, now is an {after.role}"
    if before.json_schema != after.json_schema:
        change = _type_change(before.json_schema, after.json_schema)
        yield f"{where}{after.role} {name!r} {change}"
    if before.description != after.description:
        change = _describe_change(before.description, after.description)
        yield f"{where}the description of {after.role} {name!r} {change}"


def _predictors(
    name: str, old: PredictorShape | None, new: PredictorShape | None, declared_fields: set[str]
) -> Iterator[str]:
    if old is None or new is None:
        yield f"the predictor {name!r} was {'added' if old is None else 'removed'}"
        return
    before, after = [*old.inputs, *old.outputs], [*new.inputs, *new.outputs]
    for field in dict.fromkeys([*before, *after]):
        if (field in before) != (field in after) and field not in declared_fields:
            change = "removed" if field in before else "added"
            yield f"predictor {name!r}: the field {field!r} was {change}"


def _tools(name: str, old: ToolShape | None, new: ToolShape | None) -> Iterator[str]:
    if old is None and new is not None:
        yield f"the tool {_call(name, new)} was added"
    elif new is None and old is not None:
        yield f"the tool {_call(name, old)} was removed"
    elif old is not None and new is not None:
        if old.description != new.description:
            yield f"the description of the tool {name} {_describe_change(old.description, new.description)}"
        for argument in {**old.args, **new.args}:
            change = _argument(old.args.get(argument), new.args.get(argument))
            if change is not None:
                yield f"the tool {name}: its argument {argument!r} {change}"


def _argument(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> str | None:
    if old == new:
        return None
    if old is None and new is not None:
        return f"({type_name(new)}) was added"
    if new is None and old is not None:
        return f"({type_name(old)}) was removed"
    before, after = dict(old or {}), dict(new or {})
    descriptions = before.pop("description", None), after.pop("description", None)
    return (
        _type_change(before, after)
        if before != after
        else f"has a changed description: it {_describe_change(*descriptions)}"
    )


def _call(name: str, tool: ToolShape) -> str:
    return f"{name}({', '.join(f'{arg}: {type_name(schema)}' for arg, schema in tool.args.items())})"


def _type_change(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    before, after = type_name(old), type_name(new)
    if before != after:
        return f"was {before}, now is {after}"
    return f"({after}) has a changed schema: {', '.join(_schema_changes(old, new)) or 'only empty values'}"


def _schema_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Yield the changed paths of a schema, with the old and new values."""
    before, after = ({path: value for path, _, value in leaves(schema)} for schema in (old, new))
    for path in {**before, **after}:
        if path not in after:
            yield f"{path} {before[path]!r} was removed"
        elif path not in before:
            yield f"{path} {after[path]!r} was added"
        elif before[path] != after[path]:
            yield f"{path} {_describe_change(before[path], after[path])}"


def _describe_change(old: Any, new: Any) -> str:
    return f"was {old!r}, now is {new!r}"


def _has_changed(paragraph: Any) -> bool:
    return any(piece.kind != "same" for piece in paragraph)
