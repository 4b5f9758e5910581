"""The examples folder: one file per split, and a JSON schema of the rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dspy

from oneturn.core.fields import field_type, json_types
from oneturn.core.row_files import SUFFIXES, read_rows
from oneturn.errors import DataError

SPLITS = ("train", "dev", "test")
"""The splits of an agent's examples; each is a file of its own."""
SCHEMA = "schema.json"


@dataclass(frozen=True)
class Row:
    """One row of a split's file."""

    split: str
    file: str
    place: str
    values: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The row's id, or its place in the file."""
        return str(self.values.get("id") or f"{self.file}, {self.place}")


@dataclass(frozen=True)
class BadRow:
    """A row that can't be parsed, and the reason."""

    file: str
    place: str
    reason: str


def split_files(folder: Path) -> dict[str, Path]:
    """Return the files of the folder by split.

    Raises:
        DataError: there is no file, or several for one split.
    """
    files_by_split = {}
    for split in SPLITS:
        files = [path for suffix in SUFFIXES if (path := folder / f"{split}{suffix}").is_file()]
        if len(files) > 1:
            raise DataError(f"{folder} has {files[0].name} and {files[1].name}: keep one file per split.")
        if files:
            files_by_split[split] = files[0]
    if not files_by_split:
        raise DataError(
            f"{folder} has no examples: put train.jsonl, dev.jsonl or test.jsonl there, or set data.examples in the "
            "configuration to another folder."
        )
    return files_by_split


def read_schema(folder: Path) -> dict[str, Any] | None:
    """Return the JSON schema of the folder's rows, or ``None`` without a schema file; see :func:`read_schema_file`."""
    return read_schema_file(folder / SCHEMA)


def read_schema_file(path: Path) -> dict[str, Any] | None:
    """Return the JSON schema in a file, or ``None`` if there is no such file.

    Raises:
        DataError: the file isn't a JSON object.
    """
    if not path.is_file():
        return None
    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} isn't JSON: {error}.") from None
    if not isinstance(schema, dict):
        raise DataError(f"{path} must contain a JSON object, not {type(schema).__name__}.")
    return schema


def split_rows(
    split: str, path: Path, schema: Mapping[str, Any] | None, signature: type[dspy.Signature] | None = None
) -> Iterator[Row | BadRow]:
    """Yield the rows of a split's file; cells of CSV and Parquet are converted to the types of their columns.

    Args:
        split: the split's name.
        path: its file.
        schema: the JSON schema of its rows.
        signature: has the types of columns that the schema doesn't name.
    """
    types = {} if signature is None else column_types(signature)
    types |= {name: found for name in (schema or {}).get("properties", {}) if (found := schema_types(schema, name))}
    for place, cells in read_rows(path, column_types=types):
        if isinstance(cells, str):
            yield BadRow(path.name, place, cells)
        else:
            is_csv = path.suffix == ".csv"  # where an empty cell means that the column isn't in the row
            values = {name: cell for name, cell in cells.items() if not (is_csv and cell is None)}
            yield Row(split, path.name, place, values)


def column_types(signature: type[dspy.Signature]) -> dict[str, frozenset[str]]:
    """Return the JSON types of the columns that are fields of a signature."""
    fields = {**signature.input_fields, **signature.output_fields}
    return {name: json_types(field_type(field)) for name, field in fields.items()}


def schema_types(schema: Mapping[str, Any] | None, name: str) -> frozenset[str]:
    """Return the JSON types of a field in a JSON schema, also those of its ``enum``; empty if it names none."""
    options = alternatives(schema, name)
    values = [json_types(type(value)) for option in options for value in option.get("enum", [])]
    return frozenset(name for option in options for name in types(option)).union(*values)


def alternatives(schema: Mapping[str, Any] | None, name: str) -> list[Mapping[str, Any]]:
    """Return the subschemas of a field: its own, and those it references or combines."""
    options: list[Mapping[str, Any]] = []
    queue = [(schema or {}).get("properties", {}).get(name)]
    while queue:
        option = queue.pop(0)
        if not isinstance(option, Mapping) or option in options:
            continue
        options.append(option)
        queue += [part for kind in ("anyOf", "oneOf", "allOf") for part in option.get(kind, [])]
        queue.append(_resolve_reference(schema, str(option.get("$ref", ""))))
    return options


def default(schema: Mapping[str, Any] | None, name: str) -> Any:
    """Return the default of a field, or ``None`` without one."""
    field = (schema or {}).get("properties", {}).get(name)
    return field.get("default") if isinstance(field, Mapping) else None


def enum_defaults(schema: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the labels of the rows: the fields with an enum, each with its default or ``None``."""
    names = (schema or {}).get("properties", {})
    labels = [name for name in names if any("enum" in option for option in alternatives(schema, name))]
    return {name: default(schema, name) for name in labels}


def types(alternative: Mapping[str, Any]) -> list[str]:
    """Return the JSON types of a subschema: none, one or several."""
    names = alternative.get("type", [])
    return [names] if isinstance(names, str) else list(names)


def _resolve_reference(schema: Any, reference: str) -> Any:
    """Return the subschema that a local reference points to, or ``None``."""
    if not reference.startswith("#/"):
        return None
    for part in reference.removeprefix("#/").split("/"):
        schema = schema.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(schema, Mapping) else None
    return schema
