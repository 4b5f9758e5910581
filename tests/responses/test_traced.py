"""The trace of a request, for every outcome."""

from __future__ import annotations

from typing import Any

import mlflow
import pytest
from mlflow.types.responses import ResponsesAgentRequest

from oneturn import ReAct, ResponsesAdapter
from oneturn.errors import AgentError
from oneturn.testing import ScriptedLM, _StreamingScript
from tests.responses.test_adapter import finish

QUESTION = ResponsesAgentRequest(input=[{"role": "user", "content": "How many?"}])


def adapter(*script: Any) -> ResponsesAdapter:
    program = ReAct("question -> answer", tools=[])
    program.set_lm(ScriptedLM(*script))
    return ResponsesAdapter(program)


def root_span() -> Any:
    mlflow.flush_trace_async_logging()
    trace = mlflow.get_trace(mlflow.get_last_active_trace_id())
    (root,) = (span for span in trace.data.spans if span.parent_id is None)
    return root


def test_a_stream_s_trace_has_the_response_of_predict(traced: None):
    events = list(adapter(finish(answer="twelve")).predict_stream(QUESTION))
    span = root_span()
    assert (span.name, span.attributes["oneturn.outcome"]) == ("predict_stream", "completed")
    assert span.inputs["request"]["input"][0]["content"] == "How many?"
    assert span.outputs == events[-1].model_dump(exclude_none=True)["response"]
    assert span.outputs["output"][-1]["content"][0]["text"] == "twelve"
    predicted = adapter(finish(answer="twelve")).predict(QUESTION).model_dump(exclude_none=True)
    span = root_span()
    del span.outputs["usage"]["input_tokens_details"]["cache_write_tokens"]  # not in MLflow's ResponseUsage
    assert (span.name, span.outputs["usage"]) == ("predict", predicted["usage"])
    assert [item["content"] for item in span.outputs["output"] if item["type"] == "message"] == [
        item["content"] for item in predicted["output"] if item["type"] == "message"
    ]


def test_a_trace_has_no_text_deltas(traced: None):
    list(adapter(finish(answer="word " * 200)).predict_stream(QUESTION))
    assert root_span().events == []


def test_a_closed_stream_is_traced_as_abandoned(traced: None):
    stream = adapter(finish(answer="twelve")).predict_stream(QUESTION)
    assert next(stream).type == "response.created"
    stream.close()
    assert root_span().attributes["oneturn.outcome"] == "abandoned"
    assert mlflow.get_current_active_span() is None


def test_the_span_is_not_active_for_the_reader(traced: None):
    seen = {mlflow.get_current_active_span() for _ in adapter(finish(answer="12")).predict_stream(QUESTION)}
    assert seen == {None}


def test_a_failed_request_is_traced_as_failed(traced: None):
    with pytest.raises(AgentError):
        adapter(RuntimeError("out of order")).predict(QUESTION)
    span = root_span()
    assert (span.status.status_code, span.attributes["oneturn.outcome"]) == ("ERROR", "failed")
    assert any("out of order" in str(event.attributes) for event in span.events)


def test_predict_does_not_make_the_lm_stream(monkeypatch: pytest.MonkeyPatch):
    streamed: list[Any] = []
    stream = _StreamingScript.stream
    monkeypatch.setattr(
        _StreamingScript, "stream", lambda self, request: streamed.append(request) or stream(self, request)
    )
    list(adapter(finish(answer="12")).predict_stream(QUESTION))
    assert len(streamed) == 1
    adapter(finish(answer="12")).predict(QUESTION)
    assert len(streamed) == 1
