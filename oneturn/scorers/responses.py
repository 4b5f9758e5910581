"""What a run answered as a response of the Responses protocol, and back: what MLflow's scorers are given."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import dspy
from dspy.adapters.utils import serialize_for_json
from mlflow.entities import Trace
from mlflow.types.responses import (
    create_function_call_item,
    create_function_call_output_item,
    create_text_output_item,
)
from pydantic import BaseModel

from oneturn.batch.targets import Answered, read_into
from oneturn.replies import read_reply
from oneturn.run_record import RunRecord
from oneturn.scorers.retrieval import names_of
from oneturn.scorers.traces import record_of_trace

Fields = dict[str, Any]

_NO_ANSWER = ("trajectory", "reasoning")


def as_response(answered: Answered) -> Fields:
    """A response with tool calls, answer and sources; its ``custom_outputs`` are all outputs, as they are."""
    record = answered.record
    message = create_text_output_item(answer_text(answered.prediction), "msg_0", list(_annotations(record)))
    return {
        "object": "response",
        "output": [*_calls(record), message],
        "custom_outputs": dict(answered.prediction.items()),
    }


def prediction_of(outputs: Any, trace: Trace | None = None) -> dspy.Prediction | None:
    """The prediction that stands in the outputs of a predict function, or of a served agent; ``None`` for no outputs.

    Args:
        outputs: a response, a text, or a mapping of output fields.
        trace: where the outputs don't say what tools were called, it may.
    """
    told = outputs.model_dump() if isinstance(outputs, BaseModel) else outputs
    if told is None:
        return None
    answered = Answered()
    if isinstance(told, Mapping) and isinstance(told.get("output"), list):
        read_into(read_reply([{"type": "response.completed", "response": told}]), answered)
    else:
        answered.prediction = dspy.Prediction(**(told if isinstance(told, Mapping) else {"answer": str(told)}))
    if trace is not None:
        answered.trace_id = trace.info.trace_id
        if not answered.tool_calls:
            answered.tool_calls = record_of_trace(trace)
    return answered.noted


def answer_text(prediction: dspy.Prediction) -> str:
    """The answer: the output of that name, or the first text among the outputs, or all of them as JSON."""
    outputs = {name: value for name, value in prediction.items() if name not in _NO_ANSWER}
    texts = [value for value in (outputs.get("answer"), *outputs.values()) if isinstance(value, str)]
    return texts[0] if texts else json.dumps(serialize_for_json(outputs), ensure_ascii=False)


def _calls(record: RunRecord) -> Iterator[Fields]:
    for number, call in enumerate(record.tool_calls):
        given = call["arguments"]
        arguments = given if isinstance(given, str) else json.dumps(serialize_for_json(given), ensure_ascii=False)
        yield create_function_call_item(f"fc_{number}", f"call_{number}", str(call["name"]), arguments)
        output = create_function_call_output_item(f"call_{number}", output_text(call))
        yield {**output, "sources": list(call["sources"])} if call.get("sources") else output


def output_text(call: Mapping[str, Any]) -> str:
    """What a tool gave, as text."""
    output = call.get("output")
    return output if isinstance(output, str) else json.dumps(serialize_for_json(output), ensure_ascii=False)


def _annotations(record: RunRecord) -> Iterator[Fields]:
    for cited in record.sources:
        known = next((found for found in record.found if cited in names_of(found)), {"title": cited, "url": cited})
        yield {"type": "url_citation", "title": known["title"], "url": known["url"], "start_index": 0, "end_index": 0}
