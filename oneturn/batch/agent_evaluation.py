"""The rows of MLflow's Agent Evaluation (``mlflow.genai.evaluate``) as examples, and examples as such rows.

Such a row has ``inputs``, a dict (or, in the older form, ``request``: a text, or a chat or Responses request), and
``expectations``: a dict of labels, of which MLflow's own scorers know ``expected_response``, ``expected_facts``,
``guidelines`` and ``expected_retrieved_context`` (in the older form columns of their own).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dspy
from dspy.adapters.utils import serialize_for_json
from pydantic import BaseModel

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
