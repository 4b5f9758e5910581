"""The kinds of the columns of a CSV or Parquet file: found in the rows to write, recorded, or inferred from the cells.

A kind is the name of one of Arrow's types (``int64``, ``double``, ``bool``), :data:`TEXT`, or :data:`JSON`: each cell
is JSON, or else a text.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
from pydantic_core import from_json

from oneturn.core.serialization import replace_surrogates

ColumnKinds: TypeAlias = Mapping[str, str]
"""The kinds of columns by name."""

TEXT = "text"
JSON = "json"
_METADATA = b"oneturn"
_ARROW = {"int64": pa.int64(), "double": pa.float64(), "bool": pa.bool_()}
_INT64 = range(-(2**63), 2**63)
_EXACT = 2**53  # a float rounds larger integers
# A number with a leading zero is an identifier, and stays text.
_CSV_KINDS = (
    ("int64", r"^-?(0|[1-9]\d{0,17})$"),
    ("double", r"^-?(0|[1-9]\d{0,15})(\.\d+)?([eE][+-]?\d+)?$"),  # a longer integer isn't a float
    ("bool", r"^(?i:true|false)$"),
    (JSON, r"^\s*[\[{]"),
)
_TEXT_KINDS = _CSV_KINDS[-1:]


def arrow_type(kind: str) -> pa.DataType:
    """Return the type of a column's cells."""
    return _ARROW.get(kind, pa.string())


def arrow_schema(kinds: ColumnKinds) -> pa.Schema:
    """Return a schema that records the kinds."""
    return pa.schema([pa.field(name, arrow_type(kind), metadata={_METADATA: kind}) for name, kind in kinds.items()])


def recorded_kinds(schema: pa.Schema) -> dict[str, str]:
    """Return the kinds that a schema records."""
    return {field.name: field.metadata[_METADATA].decode() for field in schema if _METADATA in (field.metadata or {})}


def kinds_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the kinds of the columns of rows to write, in the order of their first occurrence."""
    types: dict[str, set[type]] = {}
    for row in rows:
        for name, value in row.items():
            types.setdefault(name, set()).update(() if value is None else {_type(value)})
    return {name: _kind(found) for name, found in types.items()}


class _LargeInt:
    """A type of cell: an integer of 64 bits that a float would round."""


class _HugeInt:
    """A type of cell: an integer of more than 64 bits."""


def _type(value: Any) -> type:
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) <= _EXACT:
        return type(value)
    return _LargeInt if value in _INT64 else _HugeInt


def _kind(types: set[type]) -> str:
    if not types or types == {str}:
        return TEXT
    if types == {bool}:
        return "bool"
    if types <= {int, _LargeInt}:
        return "int64"
    return "double" if types <= {int, float} else JSON


def encode(value: Any, kind: str) -> Any:
    """Return a value as a cell. A text in a column of JSON is JSON only if it would be read as something else."""
    if value is None or kind in _ARROW:
        return value
    if not isinstance(value, str) or (kind == JSON and _is_json(value)):
        value = json.dumps(value, ensure_ascii=False)
    return replace_surrogates(value)


def decode(cell: Any) -> Any:
    """Return the value of a cell of a column of JSON."""
    try:
        return from_json(cell) if isinstance(cell, str) else cell
    except ValueError:
        return cell


def _is_json(text: str) -> bool:
    try:
        from_json(text)
    except ValueError:
        return False
    return True


def infer_kinds(
    batches: Iterator[pa.RecordBatch], without: Collection[str], texts: Collection[str] | None = None
) -> dict[str, str]:
    """Return the kind of each column of text whose cells all have it; a column of any text has none.

    Args:
        batches: the cells.
        without: the names of columns to skip.
        texts: the columns that hold no numbers; ``None`` for all columns of a format with types of its own.
    """
    possible: dict[str, list[tuple[str, str]]] = {}
    filled: set[str] = set()
    for batch in batches:
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if name in without or not is_text(column.type):
                continue
            if column.null_count < len(column):
                filled.add(name)
            all_kinds = _TEXT_KINDS if texts is None or name in texts else _CSV_KINDS
            possible[name] = [
                (kind, pattern)
                for kind, pattern in possible.get(name, all_kinds)
                if pc.all(pc.match_substring_regex(column, pattern)).as_py() is not False
                and (kind != JSON or all(map(_is_nested, column.to_pylist())))
            ]
    inferred = {name: options[0][0] for name, options in possible.items() if options}
    return {name: kind for name, kind in inferred.items() if texts is not None or name in filled}


def is_text(kind: pa.DataType) -> bool:
    """Return whether the cells of a type are texts."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_nested(cell: str | None) -> bool:
    return cell is None or isinstance(decode(cell), list | dict)
