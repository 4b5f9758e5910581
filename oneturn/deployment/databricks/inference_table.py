"""What a deployed agent was asked and answered, as Databricks' inference table keeps it, as rows to evaluate on.

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
from oneturn.evaluation.data_sources import source_of
from oneturn.responses.reply import Reply, read_reply

_KEPT = ("request_time", "requester", "served_entity_id", "client_request_id")


def read_inference_table(table: Any, *, question: str = "question") -> pd.DataFrame:
    """Read an inference table of an agent that speaks the Responses protocol; a row of it gives a row.

    Args:
        table: a ``pandas`` or Spark ``DataFrame``, such as ``spark.table("main.agents.desk_payload")``, or a Parquet,
            CSV or JSONL file of one.
        question: what to call the column of the last question: the program's input.

    Returns:
        The question, each custom input in a column of its own, ``answer`` (the text), ``input`` (all items that were
        sent), ``sources`` (URLs that were cited), ``tool_calls`` (names), ``error``, ``status_code``, ``seconds``,
        ``request_id``, and of the table ``request_time``, ``requester``, ``served_entity_id``, ``client_request_id``.
        ``oneturn.evaluate`` takes it; rows with an ``error`` have no answer.

    Raises:
        DataError: it has no columns ``request`` and ``response``.
    """
    found = [_read(row, question) for row in _rows(table)]
    columns = None if found else list(_read({"request": None, "response": None}, question))
    return pd.DataFrame(found, columns=columns)


def _rows(table: Any) -> Iterable[Mapping[str, Any]]:
    source = source_of(table, ("request", "response"))
    for found in source.rows():
        if not hasattr(found, "toDict"):
            raise DataError(f"This is no inference table: {found.reason}.")
        yield found.toDict()


def _read(row: Mapping[str, Any], question: str) -> dict[str, Any]:
    request = _request(row["request"])
    items = [item for item in request.get("input") or [] if isinstance(item, Mapping)]
    reply, error = _reply(row)
    milliseconds = row.get("execution_duration_ms", row.get("execution_time_ms"))
    found = {
        question: _last_question(items),
        **(request.get("custom_inputs") or {}),
        "answer": reply.text if reply else None,
        "input": items,
        "sources": [source.url for source in reply.sources] if reply else [],
        "tool_calls": [call.name for call in reply.tool_calls] if reply else [],
        "error": error,
        "status_code": row.get("status_code"),
        "seconds": None if milliseconds is None else float(milliseconds) / 1000,
        "request_id": row.get("databricks_request_id"),
    }
    return found | {name: row[name] for name in _KEPT if name in row}


def _request(text: Any) -> Mapping[str, Any]:
    """What was asked; nothing of it where it isn't kept, as Databricks does with what is too long."""
    try:
        found = _parsed(text)
    except ValueError:
        return {}
    return found if isinstance(found, Mapping) else {}


def _reply(row: Mapping[str, Any]) -> tuple[Reply | None, str | None]:
    """What was answered, or why nothing was: a response, or a stream's events as JSON or as they were sent."""
    try:
        found = _parsed(row["response"])
    except ValueError:
        return None, "The response isn't kept: it is no JSON, or was too long."
    if isinstance(found, Mapping) and "output" not in found:
        found = [found]
    events = [{"type": "response.completed", "response": found}] if isinstance(found, Mapping) else found
    try:
        return read_reply(event for event in events or [] if isinstance(event, Mapping)), None
    except EndpointError as error:
        told = error.partial.text if error.partial else ""
        return None, f"{_message(events) or error}{f' After: {told}' if told else ''}"


def _message(events: Any) -> str | None:
    """The error that Databricks tells in place of a response."""
    first = events[0] if events else {}
    return first.get("message") if isinstance(first, Mapping) and "error_code" in first else None


def _parsed(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    lines = [line.removeprefix("data:").strip() for line in text.splitlines() if line.startswith("data:")]
    if lines:
        return [json.loads(line) for line in lines if line != "[DONE]"]
    return json.loads(text) if text.strip() else None


def _last_question(items: list[Mapping[str, Any]]) -> str | None:
    for item in reversed(items):
        if item.get("role") == "user":
            content = item.get("content")
            if isinstance(content, str):
                return content
            texts = [part.get("text") for part in content or [] if isinstance(part, Mapping)]
            return "\n".join(text for text in texts if text)
    return None


def redacted(rows: pd.DataFrame, own: Mapping[str, str]) -> tuple[pd.DataFrame, Mapping[str, int]]:
    """The rows without who asked, and without what says who somebody is in what was asked and answered.

    Args:
        rows: of :func:`read_inference_table`.
        own: rules of your own, as ``data.redact`` has them.

    Returns:
        The rows, and how often each rule was applied.
    """
    redaction = Redaction(own)
    plain = rows.drop(columns="requester", errors="ignore")
    return plain.map(redaction.apply), redaction.counts
