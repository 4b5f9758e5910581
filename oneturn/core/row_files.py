"""Read and write files of rows: JSONL, CSV or Parquet."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet
from pydantic_core import from_json

from oneturn.core.serialization import replace_surrogates, replace_surrogates_deep
from oneturn.errors import DataError

SUFFIXES = (".jsonl", ".csv", ".parquet")

Row: TypeAlias = Mapping[str, Any]
ColumnTypes: TypeAlias = Mapping[str, frozenset[str]]
"""The JSON types of the values of columns, such as ``{"items": {"array", "null"}}``."""

_NESTED = frozenset({"array", "object"})
_JSON = "json"
_BATCH = 1000
_BLOCK_BYTES = 1 << 24  # of a CSV file read at once; a row can't be longer
_INT64 = range(-(2**63), 2**63)
_EXACT = 2**53  # a float rounds larger integers
# A spreadsheet runs text that begins like a formula; one "'" before it makes it text again (CWE-1236).
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_ESCAPED = r"^'('*[=+\-@\t\r])"
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")
# A number with a leading zero is an identifier, and stays text.
_CSV_TYPES = (
    (pa.int64(), r"^-?(0|[1-9]\d{0,17})$"),
    (pa.float64(), r"^-?(0|[1-9]\d{0,15})(\.\d+)?([eE][+-]?\d+)?$"),  # a longer integer isn't a float
    (pa.bool_(), r"^(?i:true|false)$"),
    (_JSON, r"^\s*[\[{]"),
)
_PARQUET_TYPES = _CSV_TYPES[-1:]
_CELL = re.compile(r'("(?:[^"]|"")*"|[^,\r\n]*)(,|\r\n|\n|\r|\Z)')


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

    Raises:
        DataError: the file can't be read.
    """
    path = Path(path)
    suffix = check_suffix(path)
    try:
        if suffix == ".jsonl":
            yield from _read_jsonl(path)
            return
        known = {name: types for name, types in (column_types or {}).items() if types}
        inferred = _infer_types(path, known, quoted_is_text) if infer_types else {}
        known |= dict.fromkeys((name for name, kind in inferred.items() if kind == _JSON), _NESTED)
        for place, cells in _read_csv(path, inferred) if suffix == ".csv" else _read_parquet(path):
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


def write_rows(path: Path | str, rows: Iterable[Row]) -> None:
    """Write rows of JSON values to a file in the format of its suffix; an existing file is replaced at the end.

    In a CSV or Parquet file, a column of one simple type has that type. Any other column is text: lists and mappings
    are JSON. Text in a CSV file that a spreadsheet would run as a formula begins with ``'``, which :func:`read_rows`
    removes. Half surrogates become U+FFFD.

    Args:
        path: the file.
        rows: the rows. For CSV and Parquet they are iterated twice, the first time for the types of the columns.

    Raises:
        DataError: the suffix is unknown, the folder doesn't exist, or there are no rows from which to take the columns
            of a CSV or Parquet file.
    """
    path = Path(path)
    suffix = check_suffix(path)
    if not path.absolute().parent.is_dir():
        raise DataError(f"There is no folder for {path}.")
    temporary = path.with_name(path.name + ".tmp")
    if suffix == ".jsonl":
        with temporary.open("w", encoding="utf-8") as file:
            file.writelines(json_line(row) for row in rows)
    else:
        _write_table(path, temporary, rows)
    temporary.replace(path)


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


def _read_csv(path: Path, types: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any] | str]]:
    malformed: dict[int, str] = {}
    number = 2
    for batch in _csv_batches(path, malformed):
        names = batch.schema.names
        columns = [_typed(column, types.get(name)) for name, column in zip(names, batch.columns, strict=True)]
        names = [_unescape(name) for name in names]
        for cells in pa.RecordBatch.from_arrays(columns, names=names).to_pylist():
            while number in malformed:
                yield f"row {number}", malformed[number]
                number += 1
            yield f"row {number}", cells
            number += 1
    for number in sorted(rest for rest in malformed if rest >= number):
        yield f"row {number}", malformed[number]


def _typed(column: pa.Array, kind: Any) -> pa.Array:
    return column.cast(kind) if isinstance(kind, pa.DataType) else pc.replace_substring_regex(column, _ESCAPED, r"\1")


def _escape(text: str) -> str:
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def _unescape(text: str) -> str:
    return re.sub(_ESCAPED, r"\1", text)


def _csv_batches(path: Path, malformed: dict[int, str]) -> Iterator[pa.RecordBatch]:
    """Yield the well-formed rows as text. The malformed ones before the end of a batch are in ``malformed`` by then."""

    def set_aside(row: Any) -> str:
        malformed[row.number] = f"has {row.actual_columns} cells, the header has {row.expected_columns}"
        return "skip"

    blocks = pa_csv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES)  # threads lose the rows' numbers
    parse = pa_csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False, invalid_row_handler=set_aside)
    with pa_csv.open_csv(path, read_options=blocks, parse_options=parse) as header:
        names = header.schema.names
    as_text = pa_csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()),
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
        null_values=[""],
    )
    with pa_csv.open_csv(path, read_options=blocks, parse_options=parse, convert_options=as_text) as batches:
        yield from batches


def _infer_types(path: Path, known: ColumnTypes, quoted_is_text: bool) -> dict[str, Any]:
    """Return the type of each column whose text cells all have it: a type of Arrow, or :data:`_JSON`."""
    is_csv = path.suffix == ".csv"
    possible: dict[str, list[tuple[Any, str]]] = {}
    filled: set[str] = set()
    texts = _quoted_columns(path) if is_csv and quoted_is_text else frozenset()
    for batch in _csv_batches(path, {}) if is_csv else _parquet_batches(path):
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if name in known or not _is_text(column.type):
                continue
            if column.null_count < len(column):
                filled.add(name)
            possible[name] = [
                (kind, pattern)
                for kind, pattern in possible.get(name, _CSV_TYPES if is_csv and name not in texts else _PARQUET_TYPES)
                if pc.all(pc.match_substring_regex(column, pattern)).as_py() is not False
                and (kind != _JSON or all(map(_is_json, column.to_pylist())))
            ]
    inferred = {name: options[0][0] for name, options in possible.items() if options}
    return {name: kind for name, kind in inferred.items() if is_csv or name in filled}


def _quoted_columns(path: Path) -> frozenset[str]:
    """Return the columns of a CSV file whose first cell that isn't missing is in quotes."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        block = file.read(_BLOCK_BYTES)
    names: list[str] = []
    quoted: dict[str, bool] = {}
    row: list[str] = []
    for cell in _CELL.finditer(block):
        row.append(cell[1])
        if cell[2] == ",":
            continue
        if names:
            quoted = {name: text.startswith('"') for name, text in zip(names, row, strict=False) if text} | quoted
        else:
            names = [text[1:-1].replace('""', '"') if text.startswith('"') else text for text in row]
        if len(quoted) == len(names):
            break
        row = []
    return frozenset(name for name, is_quoted in quoted.items() if is_quoted)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_json(cell: str | None) -> bool:
    try:
        return cell is None or isinstance(from_json(cell), list | dict)
    except ValueError:
        return False


def _parquet_batches(path: Path) -> Iterator[pa.RecordBatch]:
    with pa_parquet.ParquetFile(path) as file:
        texts = [field.name for field in file.schema_arrow if _is_text(field.type)]
        yield from file.iter_batches(_BATCH, columns=texts) if texts else ()


def _write_table(path: Path, temporary: Path, rows: Iterable[Row]) -> None:
    schema = _schema(rows)
    if not schema.names:
        raise DataError(f"no rows to write to {path}: the columns of a CSV or Parquet file are unknown without a row")
    is_csv = path.suffix == ".csv"
    write: Callable[..., Any] = pa_csv.CSVWriter if is_csv else pa_parquet.ParquetWriter
    remaining = iter(rows)
    escape = _escape if is_csv else _same
    written = pa.schema([(escape(field.name), field.type) for field in schema])
    with write(temporary, written) as writer:
        while batch := list(itertools.islice(remaining, _BATCH)):
            cells = [
                {escape(field.name): _cell(row.get(field.name), field.type, escape) for field in schema}
                for row in batch
            ]
            writer.write_table(pa.Table.from_pylist(cells, schema=written))


def _same(text: str) -> str:
    return text


def _schema(rows: Iterable[Row]) -> pa.Schema:
    """Return the columns in the order of their first occurrence, with their types."""
    kinds: dict[str, set[type]] = {}
    for row in rows:
        for name, value in row.items():
            kinds.setdefault(name, set()).update(() if value is None else {_kind(value)})
    return pa.schema([(name, _column_type(found)) for name, found in kinds.items()])


def _kind(value: Any) -> type:
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) <= _EXACT:
        return type(value)
    return _LargeInt if value in _INT64 else str


class _LargeInt:
    """A kind of cell: an integer of 64 bits that a float would round."""


def _column_type(kinds: set[type]) -> pa.DataType:
    if kinds == {bool}:
        return pa.bool_()
    if kinds and kinds <= {int, _LargeInt}:
        return pa.int64()
    return pa.float64() if kinds and kinds <= {int, float} else pa.string()


def _cell(value: Any, kind: pa.DataType, escape: Callable[[str], str]) -> Any:
    if value is None or (kind != pa.string() and not isinstance(value, str)):
        return value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return escape(replace_surrogates(text))
