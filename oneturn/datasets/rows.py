"""Load dataset rows from JSONL, CSV or Parquet, validate them with a pydantic model, hash and convert them.

Invalid rows make the load fail; the error lists all of them. In CSV, and optionally in Parquet, a nested field is JSON
text. An unquoted empty CSV cell is null (the default, if the field can't be null); a quoted empty cell is the empty
string.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import dspy
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import from_json

from oneturn.errors import DataError

Model = TypeVar("Model", bound=BaseModel)
Row: TypeAlias = BaseModel | Mapping[str, Any] | dspy.Example

SUFFIXES = (".jsonl", ".csv", ".parquet")


class _RowError(ValueError):
    """A row that can't be parsed; the message is the reason."""


def load_rows(path: Path | str, model: type[Model]) -> list[Model]:
    """Return the file's rows as instances of ``model``.

    Raises:
        DataError: the file can't be read, or rows are invalid: each is listed with file, line (or row) and reason. The
            header of a CSV file is row 1, as in a spreadsheet.
    """
    path = Path(path)
    rows: list[Model] = []
    problems: list[tuple[str, str]] = []
    for place, cells in _read(path, model):
        try:
            if isinstance(cells, _RowError):
                raise cells
            rows.append(model.model_validate(cells))
        except (_RowError, ValidationError) as error:
            problems.append((place, _reason(error)))
    if problems:
        listed = "\n".join(f"  {path.name}, {place}: {reason}" for place, reason in problems)
        message = f"{path} can't be loaded as {model.__name__} rows ({len(problems)} invalid):\n{listed}"
        raise DataError(message, problems)
    return rows


def read_rows(path: Path | str) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """Yield each row's place in the file (``"line 3"``) and its raw cells, or the reason why it can't be parsed.

    Raises:
        DataError: the file can't be read.
    """
    for place, cells in _read(Path(path), _AnyRow):
        yield place, str(cells) if isinstance(cells, _RowError) else cells


def write_rows(path: Path | str, rows: Sequence[BaseModel]) -> None:
    """Write rows of one model to a JSONL, CSV or Parquet file; ``load_rows`` returns equal rows."""
    path = Path(path)
    dumped = [row.model_dump(mode="json") for row in rows]
    if _suffix(path) == ".jsonl":
        path.write_text("".join(_json(row) + "\n" for row in dumped), encoding="utf-8")
        return
    if not rows:
        raise DataError(f"no rows to write to {path}: the columns of a CSV or Parquet file are unknown without a row")
    model = type(rows[0])
    nested = {name for name in model.model_fields if _allows_type(model, name, "array", "object")}
    table = pa.Table.from_pylist(
        [{k: _json(v) if k in nested and v is not None else v for k, v in row.items()} for row in dumped]
    )
    if path.suffix == ".csv":
        pa_csv.write_csv(table, path)
    else:
        pa_parquet.write_table(table, path)


def dataset_hash(source: Path | str | Iterable[Row], model: type[BaseModel] | None = None) -> str:
    """Return the SHA-256 of the rows' canonical JSON. Equal rows in the same order have the same hash.

    Args:
        source: the rows, or the path of a file.
        model: the model to read a file with, which makes the hash equal for JSONL, CSV and Parquet. Without it the raw
            cells are hashed.
    """
    rows = load_rows(source, model or _AnyRow) if isinstance(source, Path | str) else source
    digest = hashlib.sha256()
    for row in rows:
        digest.update(_json(_plain(row), sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def to_examples(rows: Iterable[Row], inputs: Sequence[str] = ("question",)) -> list[dspy.Example]:
    """Convert each row to a ``dspy.Example`` with all its fields and ``inputs`` as input fields."""
    examples = []
    for number, row in enumerate(rows, start=1):
        fields = _plain(row)
        if missing := [name for name in inputs if name not in fields]:
            raise DataError(f"row {number} has no input {missing[0]!r}; its fields are {', '.join(sorted(fields))}")
        examples.append(dspy.Example(**fields).with_inputs(*inputs))
    return examples


class _AnyRow(BaseModel, extra="allow"):
    """A row without a schema."""


Cells: TypeAlias = dict[str, Any] | _RowError


def _suffix(path: Path) -> str:
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path} has the suffix {path.suffix!r}; supported are {', '.join(SUFFIXES)}")
    return path.suffix


def _read(path: Path, model: type[BaseModel]) -> Iterator[tuple[str, Cells]]:
    """Yield each row's place in the file and its cells, or the reason why it can't be parsed."""
    reader = {".jsonl": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet}[_suffix(path)]
    try:
        yield from reader(path, model)
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise DataError(f"{path} can't be read: {error}") from error


def _read_jsonl(path: Path, model: type[BaseModel]) -> Iterator[tuple[str, Cells]]:
    with path.open(encoding="utf-8-sig") as lines:  # Windows editors write a byte order mark
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield f"line {number}", _parse_object(line)


def _read_csv(path: Path, model: type[BaseModel]) -> Iterator[tuple[str, Cells]]:
    malformed: dict[int, _RowError] = {}

    def set_aside(row: Any) -> str:
        reason = f"has {row.actual_columns} cells, the header has {row.expected_columns}"
        malformed[row.number] = _RowError(reason)
        return "skip"

    # With several blocks, row numbers are lost. The minimum of 2 is for an empty file.
    one_block = pa_csv.ReadOptions(use_threads=False, block_size=max(path.stat().st_size, 1) + 1)
    parse = pa_csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False, invalid_row_handler=set_aside)
    with pa_csv.open_csv(path, read_options=one_block, parse_options=parse) as opened:
        names = opened.schema.names
    malformed.clear()
    as_text = pa_csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()),
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
        null_values=[""],
    )
    table = pa_csv.read_csv(path, read_options=one_block, parse_options=parse, convert_options=as_text)
    well_formed = iter(table.to_pylist())
    for number in range(2, 2 + table.num_rows + len(malformed)):
        yield (
            f"row {number}",
            malformed[number] if number in malformed else _decode(next(well_formed), model, True),
        )


def _read_parquet(path: Path, model: type[BaseModel]) -> Iterator[tuple[str, Cells]]:
    for number, cells in enumerate(pa_parquet.read_table(path).to_pylist(), start=1):
        yield f"row {number}", _decode(cells, model, False)


def _decode(cells: dict[str, Any], model: type[BaseModel], empty_is_default: bool) -> Cells:
    """Parse the JSON text of nested fields; drop empty cells of fields that can't be null."""
    typed = {}
    for name, cell in cells.items():
        if isinstance(cell, str) and _allows_type(model, name, "array", "object"):
            try:
                cell = from_json(cell)
            except ValueError as error:
                return _RowError(f"{name}: {_not_json(error)}")
        if cell is None and empty_is_default and name in model.model_fields and not _allows_type(model, name, "null"):
            continue
        typed[name] = cell
    return typed


@cache
def _allows_type(model: type[BaseModel], name: str, *kinds: str) -> bool:
    """Return whether a field's JSON schema allows one of ``kinds`` (``"array"``, ``"object"``, ``"null"``)."""
    if name not in model.model_fields:
        return False
    annotation: Any = model.model_fields[name].annotation
    schema = TypeAdapter(annotation).json_schema()
    definitions = schema.get("$defs", {})
    for option in [schema, *schema.get("anyOf", []), *schema.get("oneOf", [])]:
        resolved = definitions.get(option.get("$ref", "").removeprefix("#/$defs/"), option)
        if resolved.get("type") in kinds:
            return True
    return False


def _parse_object(line: str) -> Cells:
    try:
        value = from_json(line)
    except ValueError as error:
        return _RowError(_not_json(error))
    return value if isinstance(value, dict) else _RowError(f"not a JSON object: {type(value).__name__}")


def _not_json(error: ValueError) -> str:
    return f"not JSON ({str(error).replace(' at line 1 column', ' at column')})"


def _reason(error: _RowError | ValidationError) -> str:
    if isinstance(error, _RowError):
        return str(error)
    parts = [(".".join(str(key) for key in item["loc"]), item["msg"]) for item in error.errors(include_url=False)]
    return "; ".join(f"{where}: {message}" if where else message for where, message in parts)


def _plain(row: Row) -> dict[str, Any]:
    if isinstance(row, BaseModel):
        return row.model_dump(mode="json")
    return dict(row.toDict() if isinstance(row, dspy.Example) else row)


def _json(value: Any, sort_keys: bool = False) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=sort_keys, default=str)


def spread(examples: Sequence[dspy.Example], label: str) -> list[dspy.Example]:
    """Interleave examples by the values of ``label``, so that any prefix is representative.

    Examples without the label form one group.
    """
    groups: dict[Any, list[dspy.Example]] = {}
    for example in examples:
        groups.setdefault(example.get(label), []).append(example)
    return [example for group in zip_longest(*groups.values()) for example in group if example is not None]
