"""``mlflow.genai.evaluate`` with what oneturn evaluates, and with its metrics."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import dspy
import mlflow
from dspy.adapters.utils import serialize_for_json
from mlflow.entities import AssessmentError, Feedback, Span, SpanType, Trace
from mlflow.genai.scorers import Scorer as MlflowScorer
from mlflow.genai.scorers import scorer as mlflow_scorer
from mlflow.types.responses import (
    create_function_call_item,
    create_function_call_output_item,
    create_text_output_item,
)
from pydantic import BaseModel

from oneturn.evaluation.data_sources import example_inputs, example_labels
from oneturn.evaluation.result import Metric
from oneturn.evaluation.run_record import RunRecord
from oneturn.evaluation.scorers.retrieval import names_of
from oneturn.evaluation.targets import Answered, EndpointTarget, read_into, resolve_target
from oneturn.responses.reply import read_reply


def record_of_trace(trace: Trace) -> list[Fields]:
    """The tool calls of a trace's ``TOOL`` spans, with what ``RETRIEVER`` spans below them found.

    A retriever that stands below no tool counts as one.
    """
    spans = {span.span_id: span for span in trace.data.spans}
    calls: dict[str, Fields] = {}
    for span in sorted(spans.values(), key=lambda each: each.start_time_ns):
        if span.span_type == SpanType.TOOL:
            calls[span.span_id] = _call(span)
        elif span.span_type == SpanType.RETRIEVER:
            above = next((each for each in _above(span, spans) if each in calls), span.span_id)
            call = calls.setdefault(above, _call(span))
            call["sources"] += [_source(found) for found in span.outputs or [] if isinstance(found, Mapping)]
    return list(calls.values())


def write_tool_spans(calls: Sequence[Mapping[str, Any]]) -> None:
    """Write spans below the active one for the tool calls of a run that happened elsewhere, behind an endpoint."""
    for call in calls:
        with mlflow.start_span(str(call["name"]), SpanType.TOOL) as span:
            span.set_inputs(call["arguments"])
            if call.get("sources"):
                with mlflow.start_span("retrieve", SpanType.RETRIEVER) as found:
                    found.set_inputs(call["arguments"])
                    found.set_outputs(passages(call))
            span.set_outputs(call["output"])


def passages(call: Mapping[str, Any]) -> list[Fields]:
    """What a tool call found, in MLflow's form: each has its line ``[id] …`` of the output, or the first all of it."""
    output, sources = str(call.get("output") or ""), call.get("sources") or ()
    lines = {f"[{found['id']}]": "" for found in sources}
    for line in output.splitlines():
        mark = line.partition(" ")[0]
        if mark in lines:
            lines[mark] = line.partition(" ")[2]
    texts = list(lines.values()) if all(lines.values()) else [output, *[""] * (len(lines) - 1)]
    return [
        {"page_content": text, "metadata": {"doc_uri": found["url"], "title": found["title"]}, "id": found["id"]}
        for text, found in zip(texts, {found["id"]: found for found in sources}.values(), strict=True)
    ]


def _call(span: Span) -> Fields:
    return {"name": span.name, "arguments": span.inputs, "output": span.outputs, "sources": []}


def _above(span: Span, spans: Mapping[str, Span]) -> Iterator[str]:
    parent = span.parent_id
    while parent is not None and parent in spans:
        yield parent
        parent = spans[parent].parent_id


def _source(found: Mapping[str, Any]) -> dict[str, str]:
    metadata = found.get("metadata") or {}
    known = str(found.get("id") or metadata.get("doc_uri") or "")
    return {
        "id": known,
        "title": str(metadata.get("title") or known),
        "url": str(metadata.get("doc_uri") or known),
    }


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
        read_into([read_reply([{"type": "response.completed", "response": told}])], answered)
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


Fields = dict[str, Any]


def predict_fn(target: Any, *, lm: dspy.BaseLM | None = None, api_key: str | None = None) -> Callable[..., Fields]:
    """The predict function of a program, an agent, a URL or a logged model, for ``mlflow.genai.evaluate``.

    It is called with a row's ``inputs`` as keyword arguments and gives a response of the Responses protocol, whose
    ``custom_outputs`` are all outputs. Each call is one trace, with ``TOOL`` and ``RETRIEVER`` spans also for a URL.

    MLflow calls it once more than there are rows, to try it out, unless the environment variable
    ``MLFLOW_GENAI_EVAL_SKIP_TRACE_VALIDATION`` is ``true``.

    Args:
        target: as :func:`oneturn.evaluate` takes it.
        lm: the LM to use with a program; ``None`` for the one that is configured now.
        api_key: the token for a URL.

    Raises:
        DataError: target is of no known kind.
    """
    # MLflow calls it in threads of its own, which dspy.context doesn't reach.
    answering = resolve_target(target, lm or dspy.settings.lm, api_key, trace=False)

    def predict(**inputs: Any) -> Fields:
        fields = example_inputs(inputs, answering.inputs)
        names = [name for name in fields if not answering.inputs or name in answering.inputs]
        answered = Answered()
        with mlflow.start_span("predict", SpanType.AGENT) as span:
            span.set_inputs(inputs)
            answering.answer(dspy.Example(**fields).with_inputs(*names), answered)
            if isinstance(answering, EndpointTarget):
                write_tool_spans(answered.tool_calls)
            response = as_response(answered)
            span.set_outputs(serialize_for_json(response))
        return response

    return predict


def as_mlflow(metric: Metric, name: str | None = None) -> MlflowScorer:
    """A metric as a scorer of ``mlflow.genai.evaluate``, which gives the same scores as ``oneturn.evaluate``.

    It reads what :func:`predict_fn` gives; what a served agent gives; or the outputs and spans of a trace. A row
    without an answer has the score 0, and one that the metric can't judge an error that says so.

    Args:
        metric: of DSPy's signature.
        name: the scorer's; ``None`` for the metric's own.
    """
    called = name or str(getattr(metric, "__name__", type(metric).__name__))

    @mlflow_scorer(name=called)
    def judged(
        inputs: Any = None, outputs: Any = None, expectations: Any = None, trace: Trace | None = None
    ) -> Feedback:
        if trace is not None and (inputs is None or outputs is None):
            asked, told = _root(trace)
            inputs, outputs = asked if inputs is None else inputs, told if outputs is None else outputs
        prediction = prediction_of(outputs, trace)
        if prediction is None:
            return Feedback(name=called, value=0.0, rationale="The run gave no answer.")
        given = {**example_inputs(inputs or {}), **(inputs or {})}
        example = dspy.Example(**{**example_labels(expectations or {}), **given}).with_inputs(*given)
        return _feedback(called, metric(example, prediction))

    return judged


def _root(trace: Trace) -> tuple[Any, Any]:
    """What a trace's outermost span was given, and what it gave."""
    root = next((span for span in trace.data.spans if span.parent_id is None), None)
    return (root.inputs, root.outputs) if root is not None else (None, None)


def _feedback(name: str, result: Any) -> Feedback:
    if not isinstance(result, dspy.Prediction):
        return Feedback(name=name, value=float(result))
    told = result.get("feedback")
    if result.score is None:
        return Feedback(name=name, error=AssessmentError(error_code="NOT_JUDGED", error_message=told))
    return Feedback(name=name, value=float(result.score), rationale=told)
