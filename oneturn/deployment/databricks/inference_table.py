"""Read a Databricks inference table, the log of a deployed agent's requests and responses, as rows to evaluate.

The columns are those of an AI Gateway inference table (Databricks, "Monitor served models using AI Gateway-enabled
inference tables"): ``request`` and ``response`` as JSON texts, ``status_code``, ``request_time``, ….
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from oneturn.datasets.redaction import Redaction
from oneturn.errors import DataError, EndpointError
from oneturn.evaluation.approval import approval_required
from oneturn.evaluation.data_sources import build_source
from oneturn.responses.endpoint_errors import mapping, mappings, read_error
from oneturn.responses.event_stream import DONE, Event
from oneturn.responses.reply import Reply, read_reply, response_events, text_in

FEEDBACK = "This row holds feedback, not a question."
"""The ``error`` of a row that holds feedback."""

_FEEDBACK_FIELDS = {"text_assessments", "retrieval_assessments", "assessments"}
_CLASHING = "response_"
"""What the name of a column begins with if a custom input has the column's name."""
_COPIED_COLUMNS = ("request_time", "requester", "served_entity_id", "client_request_id")


_REQUESTER = ("requester", f"{_CLASHING}requester")


def read_inference_table(table: Any, *, question: str = "question") -> pd.DataFrame:
    """Read the inference table of an agent that uses the Responses protocol; one result row per row of the table.

    Args:
        table: a ``pandas`` or Spark ``DataFrame``, such as ``spark.table("main.agents.mine_payload")``, or a Parquet,
            CSV or JSONL file of one.
        question: the name of the column with the last question, the program's input.

    Returns:
        A table for ``oneturn.evaluate``: the question, one column per custom input, ``answer`` (the text), ``input``
        (all input items), ``sources`` (cited URLs), ``tool_calls`` (names), ``error``, ``status_code``, ``seconds``,
        ``request_id``, and the table's ``request_time``, ``requester``, ``served_entity_id``, ``client_request_id``.
        A column with the name of a custom input is ``response_…`` instead. Rows with an ``error`` have no answer. Rows
        that hold feedback have only the ``error``. Questions asked in the chat-completions format, as AI Playground may
        do, are read like others.

    Raises:
        DataError: the table lacks the column ``request`` or ``response``.
    """
    rows = inference_rows(table, question)
    columns = None if rows else [question, *_response({"request": None, "response": None}, [])]
    return pd.DataFrame(rows, columns=columns)


def inference_rows(table: Any, question: str) -> list[dict[str, Any]]:
    """Return the rows of :func:`read_inference_table` as mappings: a table would round large integers."""
    requests = [(row, _request(row["request"])) for row in _rows(table)]
    custom_inputs = [
        dict(given) if isinstance(given := body.get("custom_inputs"), Mapping) else {} for _, body in requests
    ]
    taken = set().union(*custom_inputs)
    rows = []
    for (row, body), custom in zip(requests, custom_inputs, strict=True):
        items = _items(body)
        response = _response(row, items, is_feedback=_is_feedback(body))
        renamed = {f"{_CLASHING}{name}" if name in taken else name: value for name, value in response.items()}
        rows.append({question: _last_question(items), **custom, **renamed})
    return rows


def error_of(row: Mapping[str, Any]) -> str | None:
    """Return why a row has no answer."""
    error: str | None = row.get(f"{_CLASHING}error", row.get("error"))
    return error


def _rows(table: Any) -> Iterable[Mapping[str, Any]]:
    source = build_source(table, ("request", "response"))
    for row in source.rows():
        if not hasattr(row, "toDict"):
            raise DataError(f"This isn't an inference table: {row.reason}.")
        yield row.toDict()


def _response(row: Mapping[str, Any], items: list[Mapping[str, Any]], is_feedback: bool = False) -> dict[str, Any]:
    """The columns of a row besides the inputs."""
    reply, error = (None, FEEDBACK) if is_feedback else _reply(row)
    milliseconds = row.get("execution_duration_ms", row.get("execution_time_ms"))
    fields = {
        "answer": reply.text if reply and error is None else None,
        "input": items,
        "sources": [source.url for source in reply.sources] if reply else [],
        "tool_calls": [call.name for call in reply.tool_calls] if reply else [],
        "error": error,
        "status_code": row.get("status_code"),
        "seconds": None if milliseconds is None else float(milliseconds) / 1000,
        "request_id": row.get("databricks_request_id"),
    }
    return fields | {name: row[name] for name in _COPIED_COLUMNS if name in row}


def _request(text: Any) -> Mapping[str, Any]:
    """The request; empty if it isn't stored, because Databricks omits requests that are too long."""
    try:
        request = _parsed(text)
    except ValueError:
        return {}
    return request if isinstance(request, Mapping) else {}


def _items(request: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    given = request.get("input") or request.get("messages")
    return [{"role": "user", "content": given}] if isinstance(given, str) else mappings(given)


def _is_feedback(request: Mapping[str, Any]) -> bool:
    """Whether a row holds feedback: agents deployed with Databricks' Review App have a second entity that takes it."""
    records = request.get("dataframe_records") or request.get("inputs") or [request]
    records = records if isinstance(records, list) else [records]
    return any(isinstance(record, Mapping) and not _FEEDBACK_FIELDS.isdisjoint(record) for record in records)


def _reply(row: Mapping[str, Any]) -> tuple[Reply | None, str | None]:
    """The reply or the error, from a response, from stream events as JSON, or from a raw event stream."""
    try:
        response = _parsed(row["response"])
    except ValueError:
        return None, "The response isn't stored: it isn't JSON, or it was too long."
    if not response:
        status = row.get("status_code")
        return None, f"The response is empty{'' if pd.isna(status) else f' (HTTP {_without_decimals(status)})'}."
    try:
        reply = read_reply(_events(response))
        return reply, approval_required(call.name for call in reply.approvals) if reply.approvals else None
    except EndpointError as error:
        partial_text = error.partial.text if error.partial else ""
        return None, f"{error}{f' After: {partial_text}' if partial_text else ''}"


def _without_decimals(number: Any) -> str:
    """A whole number as text; beside missing ones, a table has it as a float."""
    return str(number).removesuffix(".0")


def _events(response: Any) -> list[Event]:
    """The events of a stored stream or response.

    Raises:
        EndpointError: it is an error of Databricks, or nothing that an agent answers.
    """
    bodies = mappings(response if isinstance(response, list) else [response])
    if bodies and "error_code" in bodies[0]:
        raise read_error(bodies[0])
    if chat := _chat_response(bodies):
        return response_events(chat)
    if isinstance(response, list):
        return list(bodies)
    predictions = mapping(response).get("predictions")
    return response_events(predictions if isinstance(predictions, Mapping) else response)


def _chat_response(bodies: list[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The response that a chat completion, or its chunks, stand for; ``None`` if they are something else."""
    bodies = [body for body in bodies if not {"type", "output"} & body.keys()]
    choices = [choice for body in bodies for choice in mappings(body.get("choices"))[:1]]
    if not choices:
        return None
    messages = [mapping(choice.get("message") or choice.get("delta")) for choice in choices]
    text = "".join(text_in(message.get("content")) for message in messages)
    ended = any("message" in choice or choice.get("finish_reason") for choice in choices)
    message = {"type": "message", "content": text}
    return {"status": "completed" if ended else "incomplete", "output": [message]}


def _parsed(text: Any) -> Any:
    value = text
    if isinstance(text, str):
        lines = [line.removeprefix("data:").strip() for line in text.split("\n") if line.startswith("data:")]
        if lines:
            return [DONE if line == "[DONE]" else json.loads(line) for line in lines]
        value = json.loads(text) if text.strip() else None
    return [*value, DONE] if value and isinstance(value, list) else value  # a list of events is stored when it ended


def _last_question(items: list[Mapping[str, Any]]) -> str | None:
    for item in reversed(items):
        if item.get("role") == "user":
            content = item.get("content")
            if isinstance(content, str):
                return content
            texts = [part.get("text") for part in mappings(content)]
            return "\n".join(text for text in texts if text and isinstance(text, str))
    return None


def redact_rows(rows: pd.DataFrame, own: Mapping[str, str]) -> tuple[pd.DataFrame, Mapping[str, int]]:
    """Remove the requester, and redact personal data and credentials in requests and answers.

    Args:
        rows: the result of :func:`read_inference_table`.
        own: additional rules, in the form of ``data.redact``.

    Returns:
        The rows, and the number of matches per rule.
    """
    redacted, counts = redact_records(rows.to_dict("records"), own)
    columns = [name for name in rows.columns if name not in _REQUESTER]
    return pd.DataFrame(redacted, index=rows.index, columns=columns), counts


def redact_records(
    rows: Iterable[Mapping[Any, Any]], own: Mapping[str, str]
) -> tuple[list[dict[str, Any]], Mapping[str, int]]:
    """Do what :func:`redact_rows` does with rows as mappings."""
    redaction = Redaction(own)
    redacted = [{name: redaction.apply(value) for name, value in row.items() if name not in _REQUESTER} for row in rows]
    return redacted, redaction.counts
