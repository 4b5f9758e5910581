"""Where the rows of an evaluation come from, read one after the other, whatever holds them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dspy
import pandas as pd
from dspy.adapters.utils import serialize_for_json
from pydantic import BaseModel

from oneturn.datasets.row_files import count_rows, read_rows
from oneturn.datasets.rows import dataset_hash
from oneturn.errors import DataError

Fields = dict[str, Any]

_CHATS = ("messages", "input")
# fmt: off
_DROPPED = {
    "inputs", "request", "expectations", "tags", "outputs", "response", "trace",
    "source", "source_id", "source_type", "created_time", "created_by", "last_update_time", "last_updated_by",
    "dataset_id", "dataset_record_id", "request_id",
}
# fmt: on


def is_agent_evaluation(row: Mapping[str, Any], inputs: Sequence[str]) -> bool:
    """Whether a row has this format, rather than the program's inputs as fields of its own."""
    if inputs and all(name in row for name in inputs):
        return False
    return isinstance(_parsed(row.get("inputs")), Mapping) or row.get("request") is not None


def example_fields(row: Mapping[str, Any], inputs: Sequence[str]) -> tuple[Fields, tuple[str, ...]]:
    """The fields of an example, and which of them are inputs.

    The labels keep their names. Those that MLflow's scorers know are given as ours, too: ``expected_response`` as
    ``answer``, the ``doc_uri`` of ``expected_retrieved_context`` as ``expected_sources``.

    Args:
        row: has this format.
        inputs: the fields that the program takes; one that is missing is filled by the request's text, or by a lone
            input of another name.
    """
    given = example_inputs(_parsed(row.get("inputs") if row.get("inputs") is not None else row["request"]), inputs)
    labels = {name: value for name, value in row.items() if name not in _DROPPED}
    labels |= _mapping(row.get("tags")) | example_labels(_mapping(row.get("expectations")))
    if (known := row.get("dataset_record_id") or row.get("request_id")) is not None:
        labels.setdefault("id", known)
    return {**example_labels(labels), **given}, tuple(name for name in given if not inputs or name in inputs)


def example_inputs(request: Any, inputs: Sequence[str] = ("question",)) -> Fields:
    """The program's inputs of ``inputs`` or ``request``: a conversation of several turns stays a list of messages."""
    if not isinstance(request, Mapping):
        return {_first(inputs): request}
    given = dict(request)
    given |= _mapping(given.pop("request", None)) if isinstance(given.get("request"), Mapping) else {}
    given |= _mapping(given.pop("custom_inputs", None))
    for name in _CHATS:
        if name in given and name not in inputs:
            given[_first(inputs)] = _asked(given.pop(name))
    missing, others = [name for name in inputs if name not in given], [name for name in given if name not in inputs]
    if len(missing) == 1 and len(others) == 1 and isinstance(given[others[0]], str):
        given[missing[0]] = given.pop(others[0])
    return given


def example_labels(expectations: Mapping[str, Any]) -> Fields:
    """Expectations as an example's fields."""
    labels = dict(expectations)
    if labels.get("expected_response") is not None:
        labels.setdefault("answer", labels["expected_response"])
    if (context := _parsed(labels.get("expected_retrieved_context"))) is not None:
        labels.setdefault("expected_sources", [str(found["doc_uri"]) for found in context if found.get("doc_uri")])
    return labels


def to_agent_evaluation(rows: Iterable[Any], inputs: Sequence[str] = ("question",)) -> list[Fields]:
    """Rows as ``mlflow.genai.evaluate`` and ``mlflow.genai.datasets`` take them.

    A text ``answer`` becomes ``expected_response``, ``expected_sources`` become ``expected_retrieved_context``: what
    MLflow's own scorers read. All other labels keep their names.

    Args:
        rows: examples, mappings or pydantic models, such as the rows of a table (``frame.to_dict("records")``).
        inputs: the fields that are given; an example that marks its own is taken at its word.

    Raises:
        DataError: a row lacks an input.
    """
    return [_evaluation_row(number, row, inputs) for number, row in enumerate(rows, start=1)]


def _evaluation_row(number: int, row: Any, inputs: Sequence[str]) -> Fields:
    if isinstance(row, dspy.Example):
        inputs = tuple(row.inputs().keys()) if row._input_keys is not None else inputs
    fields = row.model_dump() if isinstance(row, BaseModel) else dict(row.items())
    if missing := [name for name in inputs if name not in fields]:
        raise DataError(f"row {number} has no input {missing[0]!r}; its fields are {', '.join(map(str, fields))}")
    given = {name: serialize_for_json(fields.pop(name)) for name in inputs}
    labels = {name: serialize_for_json(value) for name, value in fields.items() if value is not None}
    if isinstance(labels.get("answer"), str):
        labels["expected_response"] = labels.pop("answer")
    if isinstance(labels.get("expected_sources"), list):
        labels["expected_retrieved_context"] = [{"doc_uri": source} for source in labels.pop("expected_sources")]
    return {"inputs": given, "expectations": labels}


def _first(inputs: Sequence[str]) -> str:
    return "question" if not inputs or "question" in inputs else inputs[0]


def _asked(chat: Any) -> Any:
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
    """A value that may be JSON text, as tables hold it."""
    if not isinstance(value, str) or not value.lstrip().startswith(("{", "[")):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


@dataclass(frozen=True)
class Unreadable:
    """A row that can't be evaluated on, and why."""

    reason: str


@dataclass(frozen=True)
class Source:
    """Rows to evaluate on.

    Attributes:
        rows: gives them anew each time: examples, and an :class:`Unreadable` for each row that is none.
        count: how many there are; ``None`` if that isn't known before.
        key: the same for the same rows.
    """

    rows: Callable[[], Iterator[dspy.Example | Unreadable]]
    count: int | None
    key: str


def source_of(data: Any, inputs: Sequence[str]) -> Source:
    """The rows of what a user gives.

    Args:
        data: examples; mappings; a ``pandas.DataFrame``; a ``.jsonl``, ``.csv`` or ``.parquet`` file; an MLflow
            dataset (``mlflow.data`` or ``mlflow.genai.datasets``); a Spark ``DataFrame``. Rows may have the format of
            MLflow's Agent Evaluation (:func:`to_agent_evaluation`).
        inputs: the fields that the program is given; examples that mark their own are left as they are.

    Raises:
        DataError: it is none of these, or there are no rows.
    """
    if isinstance(data, str | Path):
        return _file(Path(data), inputs)
    if hasattr(data, "toLocalIterator"):
        return Source(lambda: examples_of((row.asDict(True) for row in data.toLocalIterator()), inputs), None, "spark")
    frame = _frame(data)
    if frame is not None:
        rows = frame.to_dict("records")
        return Source(lambda: examples_of(map(without_nan, rows), inputs), len(rows), dataset_hash(rows))
    if not isinstance(data, Sequence):
        raise DataError(
            f"{type(data).__name__} holds no rows to evaluate: give examples, a DataFrame, a dataset or a file."
        )
    if not data:
        raise DataError("There are no examples to evaluate; give at least one.")
    return Source(lambda: examples_of(data, inputs), len(data), dataset_hash(_plain(row) for row in data))


def _file(path: Path, inputs: Sequence[str]) -> Source:
    if not path.is_file():
        raise DataError(f"There is no file {path}.")
    count = count_rows(path)
    stat = path.stat()
    key = hashlib.sha256(f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}".encode()).hexdigest()
    return Source(lambda: examples_of(_rows_of_file(path), inputs), count, key)


def _frame(data: Any) -> pd.DataFrame | None:
    """The data as one table, if it is one, or an MLflow dataset."""
    if isinstance(data, pd.DataFrame):
        return data
    for name in ("df", "to_df"):
        found = getattr(data, name, None)
        found = found() if callable(found) else found
        if isinstance(found, pd.DataFrame):
            return found
    return None


def _rows_of_file(path: Path) -> Iterator[dict[str, Any] | Unreadable]:
    for place, cells in read_rows(path, infer_types=True):
        yield Unreadable(f"{path.name}, {place}: {cells}") if isinstance(cells, str) else cells


def examples_of(rows: Iterable[Any], inputs: Sequence[str]) -> Iterator[dspy.Example | Unreadable]:
    for number, row in enumerate(rows, start=1):
        if isinstance(row, Unreadable) or (isinstance(row, dspy.Example) and row._input_keys is not None):
            yield row
            continue
        fields, named = _plain(row), inputs
        if is_agent_evaluation(fields, inputs):
            fields, named = example_fields(fields, inputs)
        if missing := [name for name in inputs if name not in fields]:
            known = ", ".join(map(str, fields))
            yield Unreadable(f"row {number} has no input {missing[0]!r}; its fields are {known}")
        else:
            yield dspy.Example(**fields).with_inputs(*named)


def _plain(row: Any) -> dict[str, Any]:
    if isinstance(row, dspy.Example):
        return dict(row.toDict())
    if isinstance(row, BaseModel):
        return row.model_dump(mode="json")
    if isinstance(row, Mapping):
        return dict(row)
    raise DataError(f"{row!r:.80} is no row: give a dspy.Example or a mapping.")


def without_nan(row: dict[str, Any]) -> dict[str, Any]:
    """A table's row, with ``None`` where pandas has NaN for what isn't there."""
    return {name: None if isinstance(value, float) and pd.isna(value) else value for name, value in row.items()}
