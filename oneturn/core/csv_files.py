"""Read the cells of a CSV file, as text; and write texts so that a spreadsheet runs none of them."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

_BLOCK_BYTES = 1 << 24  # read at once; a row can't be longer
# Arrow's thread that reads ahead may hold a handler longer than its reader. Were it the last to free it, it would wait
# for the GIL, and abort a process that ends meanwhile (pyarrow 25, Python 3.11): so the last handlers are kept.
_KEPT: deque[pa_csv.ParseOptions] = deque(maxlen=32)
# A spreadsheet runs text that begins like a formula; one "'" before it makes it text again (CWE-1236).
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_ESCAPED = r"^'('*[=+\-@\t\r])"
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")
_CELL = re.compile(r'("(?:[^"]|"")*"|[^,\r\n]*)(,|\r\n|\n|\r|\Z)')


def escape(text: str) -> str:
    """Return a text as a cell."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def unescape(column: pa.Array) -> pa.Array:
    """Return the texts of cells."""
    return pc.replace_substring_regex(column, _ESCAPED, r"\1")


def csv_batches(path: Path, malformed: dict[int, str]) -> Iterator[pa.RecordBatch]:
    """Yield the well-formed rows, with all cells as text.

    Args:
        path: the file.
        malformed: gets what is wrong with the other rows, by number; those before the end of a batch, by then.
    """

    def set_aside(row: Any) -> str:
        malformed[row.number] = f"has {row.actual_columns} cells, the header has {row.expected_columns}"
        return "skip"

    blocks = pa_csv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES)  # threads lose the rows' numbers
    parse = pa_csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False, invalid_row_handler=set_aside)
    _KEPT.append(parse)
    with pa_csv.open_csv(path, read_options=blocks, parse_options=parse) as header:
        names = header.schema.names
    as_text = pa_csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()),
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
        null_values=[""],
    )
    with pa_csv.open_csv(path, read_options=blocks, parse_options=parse, convert_options=as_text) as batches:
        names = [re.sub(_ESCAPED, r"\1", name) for name in names]
        for batch in batches:
            yield pa.RecordBatch.from_arrays(batch.columns, names=names)


def quoted_columns(path: Path) -> frozenset[str]:
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
