"""The rows that ``oneturn evaluate --output`` has written, read as they were."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from pyarrow.lib import ArrowInvalid

from oneturn.datasets import SUFFIXES
from oneturn.errors import DataError
from oneturn.evaluation import Evaluation


def read_rows(path: Path) -> Evaluation:
    """The evaluation whose rows a file holds.

    Raises:
        DataError: the file isn't there, can't be read, or holds no evaluation's rows.
    """
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path} must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}.")
    try:
        rows = _read(path)
    except FileNotFoundError:
        raise DataError(f"{path} isn't there: write it with oneturn evaluate --output {path}.") from None
    except (ValueError, ArrowInvalid) as error:
        raise DataError(f"{path} can't be read: {error}") from error
    check_rows(rows, str(path))
    return Evaluation(rows)


def check_rows(rows: pd.DataFrame, name: str) -> None:
    """Raise ``DataError`` if these aren't the rows of an evaluation."""
    if rows.empty:
        raise DataError(f"{name} has no rows: give an evaluation's.")
    for column in ("score", "error"):
        if column not in rows:
            raise DataError(
                f"{name} has no column {column!r}: give what oneturn.evaluate returns, or what --output wrote."
            )


def _read(path: Path) -> pd.DataFrame:
    if path.suffix == ".csv":
        return pd.read_csv(path)
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    return pd.read_json(path, lines=True, dtype=False, convert_dates=False)
