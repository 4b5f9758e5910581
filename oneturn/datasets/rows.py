"""Load dataset rows from a file, validate them with a pydantic model, hash them, and convert them for DSPy and MLflow.

Invalid rows make the load fail; the error lists all of them. In CSV, and optionally in Parquet, a nested field is JSON
text. An unquoted empty CSV cell is null (the default, if the field can't be null); a quoted empty cell is the empty
string.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import dspy
import pandas as pd
from mlflow.data.pandas_dataset import PandasDataset, from_pandas
from pydantic import BaseModel, ValidationError

from oneturn.core.fields import field_type, json_types
from oneturn.core.row_files import ColumnTypes, read_rows
from oneturn.core.serialization import canonical, plain
from oneturn.errors import DataError

if TYPE_CHECKING:
    from oneturn.agent import Agent

Model = TypeVar("Model", bound=BaseModel)
Row: TypeAlias = BaseModel | Mapping[str, Any] | dspy.Example


def load_rows(path: Path | str, model: type[Model]) -> list[Model]:
    """Return the file's rows as instances of ``model``.

    Raises:
        DataError: the file can't be read, or rows are invalid: each is listed with file, line (or row) and reason. The
            header of a CSV file is row 1.
    """
    path = Path(path)
    rows: list[Model] = []
    problems: list[tuple[str, str]] = []
    types = {name: json_types(field_type(field)) for name, field in model.model_fields.items()}
    for place, cells in read_rows(path, column_types=types):
        if isinstance(cells, str):
            problems.append((place, cells))
            continue
        try:
            rows.append(model.model_validate(_without_empty(cells, types) if path.suffix == ".csv" else cells))
        except ValidationError as error:
            problems.append((place, _reason(error)))
    if problems:
        listed = "\n".join(f"  {path.name}, {place}: {reason}" for place, reason in problems)
        message = f"{path} can't be loaded as {model.__name__} rows ({len(problems)} invalid):\n{listed}"
        raise DataError(message, problems)
    return rows


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
        digest.update(_json(_unsigned_zeros(_plain(row)), sort_keys=True).encode(errors="surrogatepass") + b"\n")
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


def to_mlflow_dataset(agent: str, split: str, examples: Sequence[dspy.Example]) -> PandasDataset:
    """Convert examples to an MLflow dataset; lists and mappings become JSON text, which every store supports."""
    rows = pd.DataFrame([{name: _flatten(value) for name, value in example.items()} for example in examples])
    return from_pandas(rows, name=f"{agent}-{split}")


def find_measured_dataset(agent: Agent, sha256: str) -> PandasDataset | None:
    """Return the dev examples whose hash is in a compiled program's manifest; ``None`` if they have changed."""
    examples = agent.examples("dev")
    most = agent.config.compile.dev_examples
    for rows in (spread(examples, most), examples[:most], examples):  # earlier compiles took the first ones
        if dataset_hash([row.toDict() for row in rows]) == sha256:
            return to_mlflow_dataset(agent.name, "dev", rows)
    return None


class _AnyRow(BaseModel, extra="allow"):
    """A row without a schema."""


def _without_empty(cells: dict[str, Any], types: ColumnTypes) -> dict[str, Any]:
    """Drop the empty cells of fields that can't be null, so that they have their defaults."""
    return {name: cell for name, cell in cells.items() if cell is not None or "null" in types.get(name, {"null"})}


def _reason(error: ValidationError) -> str:
    parts = [(".".join(str(key) for key in item["loc"]), item["msg"]) for item in error.errors(include_url=False)]
    return "; ".join(f"{where}: {message}" if where else message for where, message in parts)


def _plain(row: Row) -> dict[str, Any]:
    if isinstance(row, BaseModel):
        return row.model_dump(mode="json")
    return dict(row.toDict() if isinstance(row, dspy.Example) else row)


def _json(value: Any, sort_keys: bool = False) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=sort_keys, default=canonical)


def _unsigned_zeros(value: Any) -> Any:
    """Replace ``-0.0``, which is equal to zero and has no sign in a CSV file, by ``0.0``."""
    if isinstance(value, float):
        return value + 0.0
    if isinstance(value, Mapping):
        return {name: _unsigned_zeros(inner) for name, inner in value.items()}
    return [_unsigned_zeros(inner) for inner in value] if isinstance(value, list | tuple) else value


def interleave(examples: Sequence[dspy.Example], label: str) -> list[dspy.Example]:
    """Interleave examples by the values of ``label``, so that any prefix is representative.

    Examples without the label form one group.
    """
    groups: dict[Any, list[dspy.Example]] = {}
    for example in examples:
        groups.setdefault(example.get(label), []).append(example)
    return [example for group in zip_longest(*groups.values()) for example in group if example is not None]


def spread(examples: Sequence[dspy.Example], most: int | None) -> list[dspy.Example]:
    """Return at most ``most`` examples, at equal distances over the whole of ``examples``; ``None`` for all.

    A file is often sorted by category or by age, so that its first rows aren't representative.
    """
    count = len(examples)
    if most is None or most >= count:
        return list(examples)
    return [examples[place * count // most] for place in range(most)]


def _flatten(value: Any) -> Any:
    value = plain(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value
