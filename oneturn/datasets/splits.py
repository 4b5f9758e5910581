"""The files that examples stand in: a folder with a file a split, and their JSON schema."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from oneturn.datasets.rows import SUFFIXES, read_rows
from oneturn.errors import DataError

SPLITS = ("train", "dev", "test")
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
        """The row's id, or where it stands."""
        return str(self.values.get("id") or f"{self.file}, {self.place}")


@dataclass(frozen=True)
class BadRow:
    """A row that could not be read, and why."""

    file: str
    place: str
    reason: str


def split_files(folder: Path) -> dict[str, Path]:
    """Return the file of each split that the folder has.

    Raises:
        DataError: it has none, or two for one split.
    """
    found = {}
    for split in SPLITS:
        files = [path for suffix in SUFFIXES if (path := folder / f"{split}{suffix}").is_file()]
        if len(files) > 1:
            raise DataError(f"{folder} has {files[0].name} and {files[1].name}: keep one file a split.")
        if files:
            found[split] = files[0]
    if not found:
        raise DataError(
            f"{folder} has no examples: put train.jsonl, dev.jsonl or test.jsonl there, or set data.examples in the "
            "configuration to the folder that has them."
        )
    return found


def read_schema(folder: Path) -> dict[str, Any] | None:
    """Return the folder's JSON schema of a row, or ``None`` if it has none.

    Raises:
        DataError: the file isn't a JSON schema.
    """
    path = folder / SCHEMA
    if not path.is_file():
        return None
    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} isn't JSON: {error}.") from None
    if not isinstance(schema, dict):
        raise DataError(f"{path} must hold a JSON object, not {type(schema).__name__}.")
    return schema


def split_rows(split: str, path: Path, schema: Mapping[str, Any] | None) -> Iterator[Row | BadRow]:
    """Yield the rows of a split's file; the cells of a CSV file become what the schema says they are."""
    for place, cells in read_rows(path):
        if isinstance(cells, str):
            yield BadRow(path.name, place, cells)
        else:
            values = _from_csv(cells, schema) if path.suffix == ".csv" else cells
            yield Row(split, path.name, place, values)


def _from_csv(cells: Mapping[str, Any], schema: Mapping[str, Any] | None) -> dict[str, Any]:
    """Read a cell as JSON where its field isn't a text; leave out empty cells."""
    values = {}
    for name, cell in cells.items():
        if cell is not None:
            values[name] = cell if _is_text(schema, name) else _json(cell)
    return values


def alternatives(schema: Mapping[str, Any] | None, name: str) -> list[Mapping[str, Any]]:
    """What a field may be, by a schema: what it says of the field, and what that refers to or is composed of."""
    found: list[Mapping[str, Any]] = []
    waiting = [(schema or {}).get("properties", {}).get(name)]
    while waiting:
        told = waiting.pop(0)
        if not isinstance(told, Mapping) or told in found:
            continue
        found.append(told)
        waiting += [part for kind in ("anyOf", "oneOf", "allOf") for part in told.get(kind, [])]
        waiting.append(_referred(schema, str(told.get("$ref", ""))))
    return found


def types(alternative: Mapping[str, Any]) -> list[str]:
    """The types that an alternative names: one, several or none."""
    named = alternative.get("type", [])
    return [named] if isinstance(named, str) else list(named)


def _referred(schema: Any, reference: str) -> Any:
    """What a reference within the schema stands for."""
    if not reference.startswith("#/"):
        return None
    for part in reference.removeprefix("#/").split("/"):
        schema = schema.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(schema, Mapping) else None
    return schema


def _is_text(schema: Mapping[str, Any] | None, name: str) -> bool:
    """Whether a field may be a text, or nothing is said of what it may be."""
    options = alternatives(schema, name)
    texts = [option for option in options if "string" in types(option) or isinstance(_first(option), str)]
    return bool(texts) or not any(options)


def _first(option: Mapping[str, Any]) -> Any:
    return next(iter(option.get("enum", [])), None)


def _json(cell: str) -> Any:
    try:
        return from_json(cell)
    except ValueError:
        return cell
