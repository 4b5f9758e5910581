"""Read and write files of rows: JSONL, CSV or Parquet."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet
from pydantic_core import from_json

from oneturn.core.column_kinds import (
    JSON,
    TEXT,
    ColumnKinds,
    arrow_schema,
    arrow_type,
    decode,
    encode,
    infer_kinds,
    is_text,
    kinds_of,
    recorded_kinds,
)
from oneturn.core.csv_files import csv_batches, escape, quoted_columns, unescape
from oneturn.core.serialization import replace_surrogates, replace_surrogates_deep
from oneturn.errors import DataError

SUFFIXES = (".jsonl", ".csv", ".parquet")

Row: TypeAlias = Mapping[str, Any]
ColumnTypes: TypeAlias = Mapping[str, frozenset[str]]
"""The JSON types of the values of columns, such as ``{"items": {"array", "null"}}``."""

_NESTED = frozenset({"array", "object"})
_BATCH = 1000


def check_suffix(path: Path) -> str:
    """Return the path's suffix.

    Raises:
        DataError: it isn't the suffix of a format that holds rows.
    """
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path} must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}.")
    return path.suffix


def read_rows(
    path: Path | str,
    *,
    infer_types: bool = False,
    column_types: ColumnTypes | None = None,
    quoted_is_text: bool = False,
    kinds: ColumnKinds = MappingProxyType({}),
) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """Yield each row's place in the file (``"line 3"``) and its cells, or the reason why it can't be parsed.

    Few rows are in memory at a time. Places are the lines of a JSONL file and the rows of a CSV or Parquet file; the
    header of a CSV file is row 1, as in a spreadsheet.

    Args:
        path: the file; its suffix is its format.
        infer_types: whether a CSV column of only whole numbers, numbers or booleans has values of that type, and a CSV
            or Parquet column of only JSON lists or objects is parsed. All other cells of a CSV file are text. An
            unquoted empty cell is ``None``, a quoted one the empty string.
        column_types: the JSON types of columns, which go before inferred ones. A text cell of a CSV or Parquet file is
            parsed as JSON if its column may hold a list or an object, or no text. If it isn't JSON and a list or an
            object has to be there, the row can't be parsed.
        quoted_is_text: whether an inferred CSV column whose first cell is in quotes is no number: :func:`write_rows`
            quotes texts only, other writers all cells.
        kinds: the kinds of the columns of a CSV file, as :func:`write_rows` returned them. They go before column types
            and inferred ones, as do those that it recorded in a Parquet file: what is read is what was written.

    Raises:
        DataError: the file can't be read.
    """
    path = Path(path)
    suffix = check_suffix(path)
    try:
        if suffix == ".jsonl":
            yield from _read_jsonl(path)
            return
        is_csv = suffix == ".csv"
        found = dict(kinds) if is_csv else recorded_kinds(pa_parquet.read_schema(path))
        # A text whose column may hold a list or an object, too, was written as what it is.
        known = {
            name: types
            for name, types in (column_types or {}).items()
            if types and not (name in found and "string" in types)
        }
        if infer_types:
            texts = None if not is_csv else quoted_columns(path) if quoted_is_text else ()
            batches = csv_batches(path, {}) if is_csv else _parquet_batches(path)
            found |= infer_kinds(batches, {*known, *found}, texts)
        encoded = [name for name, kind in found.items() if kind == JSON]
        for place, cells in _read_csv(path, found) if is_csv else _read_parquet(path):
            if isinstance(cells, dict):
                cells |= {name: decode(cells[name]) for name in encoded if name in cells}
            yield place, cells if isinstance(cells, str) else _decode(cells, known)
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise DataError(f"{path} can't be read: {error}") from error


def count_rows(path: Path) -> int | None:
    """Return the number of rows where the format states it (Parquet); ``None`` otherwise.

    Raises:
        DataError: the file can't be read.
    """
    if check_suffix(path) != ".parquet":
        return None
    try:
        return int(pa_parquet.read_metadata(path).num_rows)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} can't be read: {error}") from error


def write_rows(path: Path | str, rows: Iterable[Row]) -> dict[str, str]:
    """Write rows of JSON values to a file in the format of its suffix; an existing file is replaced at the end.

    In a CSV or Parquet file, a column of one simple type has that type. Any other column is text: lists and mappings
    are JSON, and so are texts beside other values that look like JSON. A Parquet file records which it is. Text in a
    CSV file that a spreadsheet would run as a formula begins with ``'``, which :func:`read_rows` removes. Half
    surrogates become U+FFFD.

    Args:
        path: the file.
        rows: the rows. For CSV and Parquet they are iterated twice, the first time for the types of the columns.

    Returns:
        The kinds of the columns of a CSV or Parquet file, with which :func:`read_rows` reads a CSV file exactly.

    Raises:
        DataError: the suffix is unknown, the folder doesn't exist, or there are no rows from which to take the columns
            of a CSV or Parquet file.
    """
    path = Path(path)
    suffix = check_suffix(path)
    if not path.absolute().parent.is_dir():
        raise DataError(f"There is no folder for {path}.")
    temporary = path.with_name(path.name + ".tmp")
    kinds: dict[str, str] = {}
    if suffix == ".jsonl":
        with temporary.open("w", encoding="utf-8") as file:
            file.writelines(json_line(row) for row in rows)
    else:
        kinds = _write_table(path, temporary, rows)
    temporary.replace(path)
    return kinds


def json_line(row: Row) -> str:
    """Return a row as a line of a JSONL file."""
    return replace_surrogates(json.dumps(row, ensure_ascii=False)) + "\n"


def truncate_partial_line(path: Path) -> None:
    """Remove an incomplete last line, left by a process that was killed while it appended to a JSONL file."""
    with path.open("rb+") as file:
        complete_bytes = 0
        for line in file:
            if line.endswith(b"\n"):
                complete_bytes += len(line)
        file.truncate(complete_bytes)


def not_json(error: ValueError) -> str:
    """Describe an error of ``pydantic_core.from_json`` about a text of one line."""
    return f"not JSON ({str(error).replace(' at line 1 column', ' at column')})"


def _read_jsonl(path: Path) -> Iterator[tuple[str, dict[str, Any] | str]]:
    with path.open("rb") as lines:
        for number, raw in enumerate(lines, start=1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")  # Windows editors write a byte order mark
            except UnicodeDecodeError as error:
                yield f"line {number}", f"not UTF-8 (byte {error.start + 1})"
                continue
            if line.strip():
                yield f"line {number}", _parse_object(line)


def _parse_object(line: str) -> dict[str, Any] | str:
    try:
        value = from_json(line)
    except ValueError as error:
        try:
            value = replace_surrogates_deep(json.loads(line))  # half surrogates are JSON, but no text
        except ValueError:
            return not_json(error)
    return value if isinstance(value, dict) else f"not a JSON object: {type(value).__name__}"


def _read_parquet(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with pa_parquet.ParquetFile(path) as file:
        rows = (cells for batch in file.iter_batches(_BATCH) for cells in batch.to_pylist())
        for number, cells in enumerate(rows, start=1):
            yield f"row {number}", cells


def _decode(cells: dict[str, Any], types: ColumnTypes) -> dict[str, Any] | str:
    """Parse the text cells of columns with these types; or return what is wrong with the row."""
    for name, allowed in types.items():
        cell, nested, text = cells.get(name), _NESTED & allowed, "string" in allowed
        if not isinstance(cell, str) or (text and not nested):
            continue
        try:
            value = from_json(cell)
        except ValueError as error:
            if nested and not text:
                return f"{name}: {not_json(error)}; a list or an object is written as JSON"
            continue
        if not text or isinstance(value, list | dict):
            cells[name] = value
    return cells


def _read_csv(path: Path, kinds: ColumnKinds) -> Iterator[tuple[str, dict[str, Any] | str]]:
    malformed: dict[int, str] = {}
    number = 2
    for batch in csv_batches(path, malformed):
        names = batch.schema.names
        columns = [_typed(column, kinds.get(name, TEXT)) for name, column in zip(names, batch.columns, strict=True)]
        for cells in pa.RecordBatch.from_arrays(columns, names=names).to_pylist():
            while number in malformed:
                yield f"row {number}", malformed[number]
                number += 1
            yield f"row {number}", cells
            number += 1
    for number in sorted(rest for rest in malformed if rest >= number):
        yield f"row {number}", malformed[number]


def _typed(column: pa.Array, kind: str) -> pa.Array:
    return unescape(column) if arrow_type(kind) == pa.string() else column.cast(arrow_type(kind))


def _parquet_batches(path: Path) -> Iterator[pa.RecordBatch]:
    with pa_parquet.ParquetFile(path) as file:
        texts = [field.name for field in file.schema_arrow if is_text(field.type)]
        yield from file.iter_batches(_BATCH, columns=texts) if texts else ()


def _write_table(path: Path, temporary: Path, rows: Iterable[Row]) -> dict[str, str]:
    kinds = kinds_of(rows)
    if not kinds:
        raise DataError(f"no rows to write to {path}: the columns of a CSV or Parquet file are unknown without a row")
    is_csv = path.suffix == ".csv"
    write: Callable[..., Any] = pa_csv.CSVWriter if is_csv else pa_parquet.ParquetWriter
    escaped = {name: escape(name) if is_csv else name for name in kinds}
    schema = arrow_schema({escaped[name]: kind for name, kind in kinds.items()})
    remaining = iter(rows)
    with write(temporary, schema) as writer:
        while batch := list(itertools.islice(remaining, _BATCH)):
            cells = [{escaped[name]: encode(row.get(name), kind) for name, kind in kinds.items()} for row in batch]
            if is_csv:
                cells = [{n: escape(c) if isinstance(c, str) else c for n, c in row.items()} for row in cells]
            writer.write_table(pa.Table.from_pylist(cells, schema=schema))
    return kinds
