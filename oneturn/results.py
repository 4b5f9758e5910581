"""The rows that an evaluation has written, read as they were."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pa_parquet
from pyarrow.lib import ArrowInvalid

from oneturn.datasets import SUFFIXES
from oneturn.errors import DataError

_TOGETHER = 5000
Part = Callable[[pd.DataFrame], pd.DataFrame]


def read_results(path: Path, part: Part | None = None, most: int | None = None) -> pd.DataFrame:
    """The rows of a file, as they were written.

    Args:
        path: ``.jsonl``, ``.csv`` or ``.parquet``.
        part: what to keep of some thousands of rows, so that memory never holds the rest.
        most: read the first rows only, so many at least.

    Raises:
        DataError: the file isn't there, can't be read, or holds no evaluation's rows.
    """
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path} must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}.")
    try:
        rows = _together(_READERS[path.suffix](path), part, most)
    except FileNotFoundError:
        raise DataError(f"{path} isn't there: write it with oneturn evaluate --output {path}.") from None
    except (ValueError, ArrowInvalid) as error:
        raise DataError(f"{path} can't be read: {error}") from error
    check_rows(rows, str(path))
    return rows


def check_rows(rows: pd.DataFrame, name: str) -> None:
    """Raise ``DataError`` if these aren't the rows of an evaluation."""
    if rows.empty:
        raise DataError(f"{name} has no rows: give an evaluation's.")
    for column in ("score", "error"):
        if column not in rows:
            raise DataError(
                f"{name} has no column {column!r}: give what oneturn.evaluate returns, or what --output wrote."
            )


def _together(parts: Iterator[pd.DataFrame], keep: Part | None, most: int | None) -> pd.DataFrame:
    found: list[pd.DataFrame] = []
    for part in parts:
        if part.empty:
            continue
        if "score" in part and "error" in part:
            found.append(part if keep is None else keep(part))
        else:
            found.append(part)
        if most is not None and sum(map(len, found)) >= most:
            break
    # A column that is empty in one part and not in another has a type in the other.
    parts_with = [part.dropna(axis="columns", how="all") for part in found]
    columns = list(dict.fromkeys(name for part in found for name in part))
    return pd.concat(parts_with, ignore_index=True).reindex(columns=columns) if found else pd.DataFrame()


def _read_jsonl(path: Path) -> Iterator[pd.DataFrame]:
    with path.open(encoding="utf-8") as file:
        yield from pd.read_json(file, lines=True, dtype=False, convert_dates=False, chunksize=_TOGETHER)


def _read_csv(path: Path) -> Iterator[pd.DataFrame]:
    yield from pd.read_csv(path, chunksize=_TOGETHER, dtype={"id": str})


def _read_parquet(path: Path) -> Iterator[pd.DataFrame]:
    with path.open("rb") as file:
        for batch in pa_parquet.ParquetFile(file).iter_batches(_TOGETHER):
            yield batch.to_pandas()


_READERS: dict[str, Callable[[Path], Iterator[pd.DataFrame]]] = {
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
