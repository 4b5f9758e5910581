"""Data sources of an evaluation: examples, tables, files and datasets, read row by row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dspy
import pandas as pd
from pydantic import BaseModel

from oneturn.core._dspy import has_inputs
from oneturn.core.row_files import ColumnTypes, count_rows, read_rows
from oneturn.core.serialization import from_numpy, jsonable
from oneturn.datasets.rows import dataset_hash
from oneturn.errors import DataError

Fields = dict[str, Any]

_CHAT_FIELDS = ("messages", "input")
# fmt: off
_METADATA_FIELDS = {
    "inputs", "request", "expectations", "tags", "outputs", "response", "trace",
    "source", "source_id", "source_type", "created_time", "created_by", "last_update_time", "last_updated_by",
    "dataset_id", "dataset_record_id", "request_id", "trace_id",
}
# fmt: on


def is_agent_evaluation(row: Mapping[str, Any], inputs: Sequence[str]) -> bool:
    """Whether a row has the format of MLflow's Agent Evaluation, rather than any of the program's inputs as a field."""
    flat = [name for name in inputs if name in row]
    if flat and (len(flat) == len(inputs) or not _METADATA_FIELDS.issuperset(flat)):
        return False
    return isinstance(_parsed(row.get("inputs")), Mapping) or row.get("request") is not None


def example_fields(row: Mapping[str, Any], inputs: Sequence[str]) -> tuple[Fields, tuple[str, ...]]:
    """The fields of an example and the names of its inputs, from a row of MLflow's Agent Evaluation.

    Labels keep their names. Labels of MLflow's scorers are also added under oneturn's names: ``expected_response`` as
    ``answer``, the ``doc_uri`` of ``expected_retrieved_context`` as ``expected_sources``.

    Args:
        row: a row in the format of Agent Evaluation.
        inputs: the program's inputs; a missing one is filled from the request's text, or from the only input with
            another name.
    """
    given = example_inputs(_parsed(row.get("inputs") if row.get("inputs") is not None else row["request"]), inputs)
    labels = {name: value for name, value in row.items() if name not in _METADATA_FIELDS}
    labels |= _mapping(row.get("tags")) | example_labels(_mapping(row.get("expectations")))
    if (row_id := row.get("dataset_record_id") or row.get("request_id")) is not None:
        labels.setdefault("id", row_id)
    return {**example_labels(labels), **given}, tuple(name for name in given if not inputs or name in inputs)


def example_inputs(request: Any, inputs: Sequence[str] = ("question",)) -> Fields:
    """The program's inputs from ``inputs`` or ``request``; a conversation of several turns stays a list of messages."""
    if not isinstance(request, Mapping):
        return {question_field(inputs): request}
    fields = dict(request)
    fields |= _mapping(fields.pop("request", None)) if isinstance(fields.get("request"), Mapping) else {}
    fields |= _mapping(fields.pop("custom_inputs", None))
    for name in _CHAT_FIELDS:
        if name in fields and name not in inputs:
            fields[question_field(inputs)] = _question(fields.pop(name))
    missing, others = [name for name in inputs if name not in fields], [name for name in fields if name not in inputs]
    if len(missing) == 1 and len(others) == 1 and isinstance(fields[others[0]], str):
        fields[missing[0]] = fields.pop(others[0])
    return fields


def example_labels(expectations: Mapping[str, Any]) -> Fields:
    """Convert expectations to the labels of an example."""
    labels = dict(expectations)
    if labels.get("expected_response") is not None:
        labels.setdefault("answer", labels["expected_response"])
    if (context := _parsed(labels.get("expected_retrieved_context"))) is not None:
        labels.setdefault("expected_sources", [str(item["doc_uri"]) for item in context if item.get("doc_uri")])
    return labels


def to_agent_evaluation(rows: Iterable[Any], inputs: Sequence[str] = ("question",)) -> list[Fields]:
    """Convert rows to the format of ``mlflow.genai.evaluate`` and ``mlflow.genai.datasets``.

    A text ``answer`` becomes ``expected_response``, and ``expected_sources`` become ``expected_retrieved_context``, as
    MLflow's scorers read them. All other labels keep their names.

    Args:
        rows: examples, mappings or pydantic models, such as the rows of a table (``frame.to_dict("records")``).
        inputs: the input fields; inputs marked on an example take precedence.

    Raises:
        DataError: a row lacks an input.
    """
    return [_evaluation_row(number, row, inputs) for number, row in enumerate(rows, start=1)]


def _evaluation_row(number: int, row: Any, inputs: Sequence[str]) -> Fields:
    if isinstance(row, dspy.Example):
        inputs = tuple(row.inputs().keys()) if has_inputs(row) else inputs
    fields = without_nan(row.model_dump() if isinstance(row, BaseModel) else dict(row.items()))
    if missing := [name for name in inputs if name not in fields]:
        raise DataError(f"row {number} has no input {missing[0]!r}; its fields are {', '.join(map(str, fields))}")
    values = {name: jsonable(fields.pop(name)) for name in inputs}
    labels = {name: jsonable(value) for name, value in fields.items() if value is not None}
    if isinstance(labels.get("answer"), str):
        labels["expected_response"] = labels.pop("answer")
    if isinstance(labels.get("expected_sources"), list):
        labels["expected_retrieved_context"] = [{"doc_uri": source} for source in labels.pop("expected_sources")]
    return {"inputs": values, "expectations": labels}


def conversation(request: Mapping[str, Any], inputs: Sequence[str]) -> list[Any] | None:
    """The messages of a conversation in a request, one message too; ``None`` if the request has none."""
    given = (request[name] for name in _CHAT_FIELDS if name in request and name not in inputs)
    return next((list(messages) for messages in given if isinstance(messages, list | tuple)), None)


def is_conversation(value: Any) -> bool:
    """Whether a value is a list of messages."""
    messages = value if isinstance(value, list) else []
    return bool(messages) and all(isinstance(each, Mapping) and "role" in each for each in messages)


def question_field(inputs: Sequence[str]) -> str:
    """The name of the input for the question."""
    return "question" if not inputs or "question" in inputs else inputs[0]


def _question(chat: Any) -> Any:
    """The text of a single message, or all messages."""
    if isinstance(chat, str):
        return chat
    messages = list(chat)
    if len(messages) == 1 and isinstance(messages[0].get("content"), str):
        return messages[0]["content"]
    return messages


def _mapping(value: Any) -> Fields:
    parsed = _parsed(value)
    return dict(parsed) if isinstance(parsed, Mapping) else {}


def _parsed(value: Any) -> Any:
    """The value; JSON text of an object or a list is parsed, because tables store such values as text."""
    if not isinstance(value, str) or not value.lstrip().startswith(("{", "[")):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


@dataclass(frozen=True)
class Unreadable:
    """A row that can't be evaluated, and the reason."""

    reason: str


@dataclass(frozen=True)
class Source:
    """The rows to evaluate.

    Attributes:
        rows: returns a new iterator over the examples, with an :class:`Unreadable` for each row that is invalid.
        count: the number of rows; ``None`` if it is unknown in advance.
        key: identifies the data; equal for equal rows.
    """

    rows: Callable[[], Iterator[dspy.Example | Unreadable]]
    count: int | None
    key: str


SPARK = "spark"
"""The key of a Spark table."""


def build_source(
    data: Any, inputs: Sequence[str], optional: Collection[str] = (), columns: ColumnTypes | None = None
) -> Source:
    """Build the source for any supported kind of data.

    Args:
        data: examples; mappings; a ``pandas.DataFrame``; a ``.jsonl``, ``.csv`` or ``.parquet`` file; an MLflow
            dataset (``mlflow.data`` or ``mlflow.genai.datasets``); a Spark ``DataFrame``. Rows may have the format of
            MLflow's Agent Evaluation (:func:`to_agent_evaluation`).
        inputs: the program's inputs; inputs marked on an example take precedence.
        optional: the inputs that have a default; a row may lack them.
        columns: the JSON types of columns of a CSV or Parquet file; other columns are inferred.

    Raises:
        DataError: the data is of an unsupported type, or there are no rows.
    """
    if isinstance(data, str | Path):
        return _file(Path(data), inputs, optional, columns)
    if hasattr(data, "toLocalIterator"):
        return Source(
            lambda: iter_examples((row.asDict(True) for row in data.toLocalIterator()), inputs, optional), None, SPARK
        )
    frame = _frame(data)
    if frame is not None:
        rows = frame.to_dict("records")
        return Source(lambda: iter_examples(map(without_nan, rows), inputs, optional), len(rows), dataset_hash(rows))
    if not isinstance(data, Sequence):
        raise DataError(
            f"{type(data).__name__} can't be read as rows: give examples, a DataFrame, a dataset or a file."
        )
    if not data:
        raise DataError("There are no examples to evaluate; give at least one.")
    return Source(lambda: iter_examples(data, inputs, optional), len(data), dataset_hash(_plain(row) for row in data))


def _file(path: Path, inputs: Sequence[str], optional: Collection[str], columns: ColumnTypes | None) -> Source:
    if not path.is_file():
        raise DataError(f"The file {path} doesn't exist.")
    count = count_rows(path)
    stat = path.stat()
    key = hashlib.sha256(f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}".encode()).hexdigest()
    return Source(lambda: iter_examples(_rows_of_file(path, columns), inputs, optional), count, key)


def _frame(data: Any) -> pd.DataFrame | None:
    """The table of a ``DataFrame`` or an MLflow dataset; ``None`` for other data."""
    if isinstance(data, pd.DataFrame):
        return data
    for name in ("df", "to_df"):
        frame = getattr(data, name, None)
        frame = frame() if callable(frame) else frame
        if isinstance(frame, pd.DataFrame):
            return frame
    return None


def _rows_of_file(path: Path, columns: ColumnTypes | None) -> Iterator[dict[str, Any] | Unreadable]:
    for place, cells in read_rows(path, infer_types=True, column_types=columns):
        yield Unreadable(f"{path.name}, {place}: {cells}") if isinstance(cells, str) else cells


def iter_examples(
    rows: Iterable[Any], inputs: Sequence[str], optional: Collection[str] = ()
) -> Iterator[dspy.Example | Unreadable]:
    for number, row in enumerate(rows, start=1):
        if isinstance(row, Unreadable) or (isinstance(row, dspy.Example) and has_inputs(row)):
            yield row
            continue
        fields, input_names = _plain(row), inputs
        if is_agent_evaluation(fields, inputs):
            fields, input_names = example_fields(fields, inputs)
        if missing := [name for name in inputs if name not in fields and name not in optional]:
            names = ", ".join(map(str, fields))
            yield Unreadable(f"row {number} has no input {missing[0]!r}; its fields are {names}")
        else:
            yield dspy.Example(**fields).with_inputs(*(name for name in input_names if name in fields))


def _plain(row: Any) -> dict[str, Any]:
    if isinstance(row, dspy.Example):
        return dict(row.toDict())
    if isinstance(row, BaseModel):
        return row.model_dump(mode="json")
    if isinstance(row, Mapping):
        return without_nan(dict(row))
    raise DataError(f"{row!r:.80} isn't a row: give a dspy.Example or a mapping.")


def without_nan(row: dict[str, Any]) -> dict[str, Any]:
    """The row with ``None`` for pandas' missing values."""
    return {name: None if _is_missing(value) else _without_arrays(value) for name, value in row.items()}


def _is_missing(value: Any) -> bool:
    return value is pd.NaT or value is pd.NA or (isinstance(value, float) and pd.isna(value))


def _without_arrays(value: Any) -> Any:
    """Return a value of a Parquet or Spark table with lists for its NumPy arrays."""
    if isinstance(value, dict):
        return {name: _without_arrays(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_without_arrays(inner) for inner in value]
    native = from_numpy(value)
    return value if native is value else _without_arrays(native) if isinstance(native, list) else native
