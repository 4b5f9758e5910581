"""Whether rows fit their JSON schema and the signature's types: each problem with place, field, value and fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Annotated, Any

import dspy
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from pydantic import TypeAdapter
from pydantic import ValidationError as TypeProblem
from referencing.exceptions import Unresolvable

from oneturn.core.findings import DataFinding, Severity
from oneturn.datasets.splits import BadRow, Row, types
from oneturn.errors import DataError

_NAMED = {
    "string": "a text",
    "boolean": "true or false",
    "integer": "a whole number",
    "array": "a list",
    "null": "null",
}


def unreadable(rows: Iterable[BadRow]) -> Iterator[DataFinding]:
    """A finding for each row that could not be read."""
    for row in rows:
        fix = "Write the row as one JSON object a line." if row.file.endswith(".jsonl") else "Mend the row."
        yield DataFinding(Severity.error, "schema", row.reason, fix, row.file, row.place)


def against_schema(rows: Iterable[Row], schema: Mapping[str, Any]) -> Iterator[DataFinding]:
    """A finding for each value that the JSON schema doesn't allow.

    Raises:
        DataError: the schema itself isn't valid.
    """
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise DataError(f"schema.json isn't a JSON schema: {error.message}.") from None
    validator = Draft202012Validator(schema)
    try:
        for row in rows:
            found: list[DataFinding] = []
            for problem in validator.iter_errors(dict(row.values)):  # one for each name that is missing
                if (explained := _explained(row, problem)) not in found:
                    found.append(explained)
            yield from found
    except Unresolvable as reference:
        raise DataError(f"schema.json refers to what isn't there: {reference}.") from None


def against_signature(rows: Iterable[Row], signature: type[dspy.Signature]) -> Iterator[DataFinding]:
    """A finding for each input that a row lacks, and for each value that isn't of its field's type."""
    fields = {**signature.input_fields, **signature.output_fields}
    for row in rows:
        for name, field in fields.items():
            if name in row.values:
                yield from _of_type(row, name, field)
            elif name in signature.input_fields and field.is_required():
                message = f"{name!r}, an input of the program, is missing."
                yield _finding(row, "signature", message, f"Add {name!r}.", name)


def against_loader(file: str, error: DataError, known: Sequence[DataFinding]) -> Iterator[DataFinding]:
    """A finding for each row that the agent's own loader refused, unless another check has named that row."""
    named = {(finding.file, finding.place) for finding in known}
    fix = "Change the row so that the agent's own model takes it."
    for place, reason in error.problems:
        if (file, place) not in named:
            yield DataFinding(Severity.error, "loader", f"{reason}.", fix, file, place)
    if not error.problems:
        yield DataFinding(Severity.error, "loader", str(error), "Mend it, or what loads it.", file)


def unique_ids(rows: Iterable[Row]) -> Iterator[DataFinding]:
    """A finding for each row whose id another row has."""
    first: dict[Any, Row] = {}
    for row in rows:
        ident = row.values.get("id")
        if isinstance(ident, str | int) and (before := first.setdefault(ident, row)) is not row:
            message = f"the id {ident!r} is that of {before.file}, {before.place} too."
            yield _finding(row, "ids", message, "Give each row an id of its own.", "id", ident)


def _explained(row: Row, error: ValidationError) -> DataFinding:
    field = ".".join(map(str, error.absolute_path))
    if error.validator == "required":
        missing = [name for name in error.validator_value if name not in error.instance]
        names = ", ".join(map(repr, missing))
        return _finding(row, "schema", f"{names} is missing.", f"Add {names}.", field or missing[0])
    if error.validator == "additionalProperties":
        return _surplus(row, error, field)
    fix = "See schema.json."
    if error.validator == "enum":
        fix = f"Take one of {', '.join(map(str, error.validator_value))}."
    elif error.validator == "type":
        fix = f"Make it {' or '.join(_NAMED.get(name, name) for name in types({'type': error.validator_value}))}."
    return _finding(row, "schema", f"{error.message}.", fix, field, error.instance)


def _surplus(row: Row, error: ValidationError, field: str) -> DataFinding:
    known = list(error.schema.get("properties", {}))
    surplus = [name for name in error.instance if name not in known]
    nearest = difflib.get_close_matches(surplus[0], known, n=1)
    fix = f"Call it {nearest[0]!r}." if nearest else "Take it out, or add it to the schema."
    name = ".".join(filter(None, (field, surplus[0])))
    message = f"{', '.join(map(repr, surplus))} isn't in the schema."
    return _finding(row, "schema", message, fix, name, error.instance[surplus[0]])


def _of_type(row: Row, name: str, field: Any) -> Iterator[DataFinding]:
    value = row.values[name]
    try:
        _adapter(field.annotation, *field.metadata).validate_python(value)
    except TypeProblem as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(map(str, (name, *problem["loc"])))
        yield _finding(row, "signature", f"{problem['msg']}.", f"Make {name!r} what the signature says.", place, value)


@cache
def _adapter(annotation: Any, *metadata: Any) -> TypeAdapter[Any]:
    typed: Any = Annotated
    marked = (annotation, *metadata)
    return TypeAdapter(typed[marked] if metadata else annotation)


def _finding(row: Row, check: str, message: str, fix: str, field: str = "", value: Any = None) -> DataFinding:
    return DataFinding(Severity.error, check, message, fix, row.file, row.place, field, value)
