"""Validate rows against the JSON schema, the signature's types and the agent's loader."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import dspy
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from pydantic import ValidationError as TypeProblem
from pydantic import create_model
from referencing.exceptions import Unresolvable

from oneturn.core.fields import field_type, validate_field
from oneturn.core.findings import Finding, Severity
from oneturn.core.splits import BadRow, Row, types
from oneturn.errors import DataError

_TYPES = {
    "string": "a string",
    "boolean": "true or false",
    "integer": "an integer",
    "array": "a list",
    "null": "null",
}


def example_schema(signature: type[dspy.Signature]) -> dict[str, Any]:
    """Return a JSON schema of examples for a signature: its fields, an optional id, and any other column.

    Inputs are required, except those with a default and conversations (``dspy.History``).
    """
    fields = {**signature.input_fields, **signature.output_fields}
    columns = {name: field for name, field in fields.items() if field.annotation is not dspy.History}
    required = [name for name in columns if name in signature.input_fields and columns[name].is_required()]
    types_by_name: dict[str, Any] = {name: (field_type(field), ...) for name, field in columns.items()}
    schema = create_model("Example", **types_by_name).model_json_schema()
    schema["properties"] = {"id": {"type": "string"}, **schema["properties"]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "required": required}


def keep_columns(schema: dict[str, Any], existing: Mapping[str, Any]) -> list[str]:
    """Add to a schema what an existing one has beyond the signature's fields; return the names of the added columns.

    Kept are columns of one's own, whether each is required, descriptions of the fields, and whether other columns are
    allowed.
    """
    properties, before = schema["properties"], existing.get("properties") or {}
    for name, column in before.items():
        if name in properties and isinstance(column, Mapping) and "description" in column:
            properties[name].setdefault("description", column["description"])
    added = [name for name in before if name not in properties]
    properties.update({name: before[name] for name in added})
    schema["required"] += [name for name in existing.get("required", []) if name in added or name == "id"]
    if definitions := {**(existing.get("$defs") or {}), **schema.get("$defs", {})}:
        schema["$defs"] = definitions
    if "additionalProperties" in existing:
        schema["additionalProperties"] = existing["additionalProperties"]
    return added


def unreadable(rows: Iterable[BadRow]) -> Iterator[Finding]:
    """Yield a finding for each row that can't be parsed."""
    for row in rows:
        fix = "Write each row as one JSON object per line." if row.file.endswith(".jsonl") else "Fix the row."
        yield Finding(Severity.error, "schema", row.reason, fix, row.file, row.place)


def against_schema(rows: Iterable[Row], schema: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield a finding for each violation of the JSON schema.

    Raises:
        DataError: the schema is invalid.
    """
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise DataError(f"schema.json isn't a valid JSON schema: {error.message}.") from None
    validator = Draft202012Validator(schema)
    try:
        for row in rows:
            findings: list[Finding] = []
            for problem in validator.iter_errors(dict(row.values)):  # a missing field gives one error per name
                if (finding := _schema_finding(row, problem)) not in findings:
                    findings.append(finding)
            yield from findings
    except Unresolvable as reference:
        raise DataError(f"schema.json has an unresolvable reference: {reference}.") from None


def against_signature(rows: Iterable[Row], signature: type[dspy.Signature]) -> Iterator[Finding]:
    """Yield a finding for each missing input, and for each value that doesn't match its field's type."""
    fields = {**signature.input_fields, **signature.output_fields}
    for row in rows:
        for name, field in fields.items():
            if name in row.values:
                yield from _check_type(row, name, field)
            elif name in signature.input_fields and field.is_required():
                message = f"input {name!r} is missing."
                yield _finding(row, "signature", message, f"Add {name!r}.", name)


def against_loader(file: str, error: DataError, findings: Sequence[Finding]) -> Iterator[Finding]:
    """Yield a finding for each row that the agent's own loader rejects and no other check has reported."""
    reported = {(finding.file, finding.place) for finding in findings}
    fix = "Change the row so that the agent's loader accepts it."
    for place, reason in error.problems:
        if (file, place) not in reported:
            yield Finding(Severity.error, "loader", f"{reason}.", fix, file, place)
    if not error.problems:
        yield Finding(Severity.error, "loader", str(error), "Fix the file or the agent's loader.", file)


def unique_ids(rows: Iterable[Row]) -> Iterator[Finding]:
    """Yield a finding for each duplicate id."""
    first: dict[Any, Row] = {}
    for row in rows:
        ident = row.values.get("id")
        if isinstance(ident, str | int) and (before := first.setdefault(ident, row)) is not row:
            message = f"id {ident!r} is already used in {before.file}, {before.place}."
            yield _finding(row, "ids", message, "Give each row a unique id.", "id", ident)


def _schema_finding(row: Row, error: ValidationError) -> Finding:
    field = ".".join(map(str, error.absolute_path))
    if error.validator == "required":
        missing = [name for name in error.validator_value if name not in error.instance]
        names = ", ".join(map(repr, missing))
        return _finding(row, "schema", f"{names} is missing.", f"Add {names}.", field or missing[0])
    if error.validator == "additionalProperties":
        return _unknown_fields_finding(row, error, field)
    fix = "See schema.json."
    if error.validator == "enum":
        fix = f"Use one of {', '.join(map(str, error.validator_value))}."
    elif error.validator == "type":
        fix = f"Change it to {' or '.join(_TYPES.get(name, name) for name in types({'type': error.validator_value}))}."
    return _finding(row, "schema", f"{error.message}.", fix, field, error.instance)


def _unknown_fields_finding(row: Row, error: ValidationError, field: str) -> Finding:
    allowed = list(error.schema.get("properties", {}))
    unknown = [name for name in error.instance if name not in allowed]
    nearest = difflib.get_close_matches(unknown[0], allowed, n=1)
    fix = f"Rename it to {nearest[0]!r}." if nearest else "Remove it, or add it to the schema."
    name = ".".join(filter(None, (field, unknown[0])))
    message = f"{', '.join(map(repr, unknown))} isn't in the schema."
    return _finding(row, "schema", message, fix, name, error.instance[unknown[0]])


def _check_type(row: Row, name: str, field: Any) -> Iterator[Finding]:
    value = row.values[name]
    try:
        validate_field(field, value)
    except TypeProblem as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(map(str, (name, *problem["loc"])))
        fix = f"The signature declares {name}: {inspect.formatannotation(field_type(field))}."
        yield _finding(row, "signature", f"{problem['msg']}.", fix, place, value)


def _finding(row: Row, check: str, message: str, fix: str, field: str = "", value: Any = None) -> Finding:
    return Finding(Severity.error, check, message, fix, row.file, row.place, field, value)
