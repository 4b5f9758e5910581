"""Use oneturn's targets and metrics with ``mlflow.genai.evaluate``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import dspy
import mlflow
from mlflow.entities import AssessmentError, Feedback, Span, SpanType, Trace
from mlflow.genai.scorers import Scorer as MlflowScorer
from mlflow.genai.scorers import scorer as mlflow_scorer
from mlflow.types.responses import (
    create_function_call_item,
    create_function_call_output_item,
    create_text_output_item,
)
from pydantic import BaseModel

from oneturn.core.serialization import jsonable
from oneturn.core.tracing import flush_at_exit, set_usage
from oneturn.evaluation.data_sources import conversation, example_inputs, example_labels, question_field
from oneturn.evaluation.result import Metric
from oneturn.evaluation.row import finite
from oneturn.evaluation.run_record import RunRecord
from oneturn.evaluation.scorers.retrieval import names_of
from oneturn.evaluation.targets import EndpointTarget, ProgramTarget, TargetResult, read_into, resolve_target
from oneturn.responses.reply import read_response


def record_of_trace(trace: Trace) -> list[Fields]:
    """The tool calls of a trace: its ``TOOL`` spans, with the documents of the ``RETRIEVER`` spans below them.

    A retriever span that is below no tool span counts as a tool call.
    """
    spans = {span.span_id: span for span in trace.data.spans}
    calls: dict[str, Fields] = {}
    for span in sorted(spans.values(), key=lambda each: each.start_time_ns):
        if span.span_type == SpanType.TOOL:
            calls[span.span_id] = _call(span)
        elif span.span_type == SpanType.RETRIEVER:
            parent = next((each for each in _ancestors(span, spans) if each in calls), span.span_id)
            call = calls.setdefault(parent, _call(span))
            call["sources"] += [_source(document) for document in span.outputs or [] if isinstance(document, Mapping)]
    return list(calls.values())


def write_tool_spans(calls: Sequence[Mapping[str, Any]]) -> None:
    """Write child spans of the active span for the tool calls of a run behind an endpoint."""
    for call in calls:
        with mlflow.start_span(str(call["name"]), SpanType.TOOL) as span:
            span.set_inputs(call["arguments"])
            if call.get("sources"):
                with mlflow.start_span("retrieve", SpanType.RETRIEVER) as retriever:
                    retriever.set_inputs(call["arguments"])
                    retriever.set_outputs(passages(call))
            span.set_outputs(call["output"])


def passages(call: Mapping[str, Any]) -> list[Fields]:
    """The documents of a tool call in MLflow's form.

    A document's text is its line ``[id] …`` of the output. If a line is missing, the first document gets all of it.
    """
    output, sources = str(call.get("output") or ""), call.get("sources") or ()
    lines = {f"[{source['id']}]": "" for source in sources}
    for line in output.splitlines():
        mark = line.partition(" ")[0]
        if mark in lines:
            lines[mark] = line.partition(" ")[2]
    texts = list(lines.values()) if all(lines.values()) else [output, *[""] * (len(lines) - 1)]
    return [
        {"page_content": text, "metadata": {"doc_uri": source["url"], "title": source["title"]}, "id": source["id"]}
        for text, source in zip(texts, {source["id"]: source for source in sources}.values(), strict=True)
    ]


def _call(span: Span) -> Fields:
    return {"name": span.name, "arguments": span.inputs, "output": span.outputs, "sources": []}


def _ancestors(span: Span, spans: Mapping[str, Span]) -> Iterator[str]:
    parent = span.parent_id
    while parent is not None and parent in spans:
        yield parent
        parent = spans[parent].parent_id


def _source(document: Mapping[str, Any]) -> dict[str, str]:
    metadata = document.get("metadata") or {}
    identifier = str(document.get("id") or metadata.get("doc_uri") or "")
    return {
        "id": identifier,
        "title": str(metadata.get("title") or identifier),
        "url": str(metadata.get("doc_uri") or identifier),
    }


_NO_ANSWER = ("trajectory", "reasoning")


def as_response(answered: TargetResult) -> Fields:
    """A response with tool calls, answer and sources; its ``custom_outputs`` are all outputs, unchanged.

    Where the run ended at calls that need a person's approval, it has these instead of an answer.
    """
    record = answered.record
    message = create_text_output_item(answer_text(answered.prediction), "msg_0", list(_annotations(record)))
    return {
        "object": "response",
        "output": [*_calls(record), *(_approvals(record) if record.approvals else [message])],
        "custom_outputs": dict(answered.prediction.items()),
    }


def prediction_of(outputs: Any, trace: Trace | None = None) -> dspy.Prediction | None:
    """The prediction in the outputs of a predict function or a served agent; ``None`` if there are no outputs.

    Args:
        outputs: a response, a text, or a mapping of output fields.
        trace: read for tool calls if the outputs contain none.
    """
    reply = outputs.model_dump() if isinstance(outputs, BaseModel) else outputs
    if reply is None:
        return None
    answered = TargetResult()
    if isinstance(reply, Mapping) and isinstance(reply.get("output"), list):
        read_into([read_response(reply)], answered)
    else:
        answered.prediction = dspy.Prediction(**(reply if isinstance(reply, Mapping) else {"answer": str(reply)}))
    if trace is not None:
        answered.trace_id = trace.info.trace_id
        if not answered.tool_calls:
            answered.tool_calls = record_of_trace(trace)
    return answered.noted


def answer_text(prediction: dspy.Prediction) -> str:
    """The answer text: the output ``answer``, else the first text output, else all outputs as JSON."""
    outputs = {name: value for name, value in prediction.items() if name not in _NO_ANSWER}
    texts = [value for value in (outputs.get("answer"), *outputs.values()) if isinstance(value, str)]
    return texts[0] if texts else json.dumps(jsonable(outputs), ensure_ascii=False)


def _calls(record: RunRecord) -> Iterator[Fields]:
    for number, call in enumerate(record.tool_calls):
        raw = call["arguments"]
        arguments = raw if isinstance(raw, str) else json.dumps(jsonable(raw), ensure_ascii=False)
        yield create_function_call_item(f"fc_{number}", f"call_{number}", str(call["name"]), arguments)
        output = create_function_call_output_item(f"call_{number}", output_text(call))
        yield {**output, "sources": list(call["sources"])} if call.get("sources") else output


def _approvals(record: RunRecord) -> Iterator[Fields]:
    for number, call in enumerate(record.approvals):
        arguments = json.dumps(jsonable(call["arguments"]), ensure_ascii=False)
        item = {"id": f"mcpr_{number}", "name": str(call["name"]), "arguments": arguments, "server_label": "oneturn"}
        yield {"type": "mcp_approval_request", **item}


def output_text(call: Mapping[str, Any]) -> str:
    """The output of a tool call, as text."""
    output = call.get("output")
    return output if isinstance(output, str) else json.dumps(jsonable(output), ensure_ascii=False)


def _annotations(record: RunRecord) -> Iterator[Fields]:
    for cited in record.sources:
        unknown = {"title": cited, "url": cited}
        source = next((document for document in record.found if cited in names_of(document)), unknown)
        yield {"type": "url_citation", "title": source["title"], "url": source["url"], "start_index": 0, "end_index": 0}


Fields = dict[str, Any]


def predict_fn(
    target: Any,
    *,
    lm: dspy.BaseLM | None = None,
    api_key: str | None = None,
    types: Mapping[str, Any] | None = None,
) -> Callable[..., Fields]:
    """A predict function for ``mlflow.genai.evaluate``, from a program, an agent, a URL or a logged model.

    The function takes a row's ``inputs`` as keyword arguments and returns a response of the Responses protocol, whose
    ``custom_outputs`` are all outputs. Each call is one trace, with ``TOOL`` and ``RETRIEVER`` spans also for a URL.

    MLflow makes one extra call to validate the function, unless the environment variable
    ``MLFLOW_GENAI_EVAL_SKIP_TRACE_VALIDATION`` is ``true``.

    MLflow's ``ConversationSimulator`` calls it with ``input``, the messages of the conversation so far.

    Args:
        target: as :func:`oneturn.evaluate` takes it.
        lm: the LM for a program; ``None`` for the LM configured in DSPy.
        api_key: the token for a URL.
        types: the types of the outputs of a URL; see :func:`oneturn.evaluate`.

    Raises:
        DataError: the target is of an unsupported type.
    """
    # MLflow calls the function in its own threads, which don't inherit dspy.context.
    resolved = resolve_target(target, lm or dspy.settings.lm, api_key, trace=False, types=types)

    def predict(*, input: Any = None, **inputs: Any) -> Fields:
        inputs |= {} if input is None else {"input": input}
        inputs.pop("mlflow_session_id", None)  # the simulator sets it on the trace, too
        fields = example_inputs(inputs, resolved.inputs)
        names = [name for name in fields if not resolved.inputs or name in resolved.inputs]
        if (messages := conversation(inputs, resolved.inputs)) is not None:
            fields.pop(question_field(resolved.inputs), None)
            names = [*(name for name in names if name in fields), "question"]
            fields["question"] = messages
        answered = TargetResult()
        with mlflow.start_span("predict", SpanType.AGENT) as span:
            flush_at_exit()
            span.set_inputs(inputs)
            try:
                resolved.answer(dspy.Example(**fields).with_inputs(*names), answered)
            finally:
                if isinstance(resolved, ProgramTarget):  # a served agent or a logged model has a trace of its own
                    set_usage(span, answered.usage)
            if isinstance(resolved, EndpointTarget):
                write_tool_spans(answered.tool_calls)
            response = as_response(answered)
            span.set_outputs(jsonable(response))
        return response

    return predict


def as_mlflow(metric: Metric, name: str | None = None) -> MlflowScorer:
    """A metric as a scorer for ``mlflow.genai.evaluate``, with the same scores as in ``oneturn.evaluate``.

    It reads the outputs of :func:`predict_fn`, of a served agent, or of a trace with its spans. A row without an answer
    scores 0. A row that the metric can't judge gets an error with the reason.

    Args:
        metric: a metric with DSPy's signature.
        name: the scorer's name; ``None`` for the metric's name.
    """
    scorer_name = name or str(getattr(metric, "__name__", type(metric).__name__))

    @mlflow_scorer(name=scorer_name)
    def score(
        inputs: Any = None, outputs: Any = None, expectations: Any = None, trace: Trace | None = None
    ) -> Feedback:
        if trace is not None and (inputs is None or outputs is None):
            root_inputs, root_outputs = _root(trace)
            inputs, outputs = root_inputs if inputs is None else inputs, root_outputs if outputs is None else outputs
        prediction = prediction_of(outputs, trace)
        if prediction is None:
            return Feedback(name=scorer_name, value=0.0, rationale="The run gave no answer.")
        fields = {**example_inputs(inputs or {}), **(inputs or {})}
        example = dspy.Example(**{**example_labels(expectations or {}), **fields}).with_inputs(*fields)
        return _feedback(scorer_name, metric(example, prediction))

    return score


def _root(trace: Trace) -> tuple[Any, Any]:
    """Inputs and outputs of a trace's root span."""
    root = next((span for span in trace.data.spans if span.parent_id is None), None)
    return (root.inputs, root.outputs) if root is not None else (None, None)


def _feedback(name: str, result: Any) -> Feedback:
    if not isinstance(result, dspy.Prediction):
        return Feedback(name=name, value=finite(result))
    text = result.get("feedback")
    if result.score is None:
        return Feedback(name=name, error=AssessmentError(error_code="NOT_JUDGED", error_message=text))
    return Feedback(name=name, value=finite(result.score), rationale=text)
