"""The trace of a request, for every outcome."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import dspy
import mlflow
import pytest
from dspy.lm15 import Message, Request, Response, TextPart, Usage
from mlflow.types.responses import ResponsesAgentRequest

import oneturn
from oneturn import ReAct, ResponsesAdapter
from oneturn.errors import AgentError
from oneturn.evaluation.scorers import predict_fn
from oneturn.testing import ScriptedLM, _StreamingScript, call
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


def look_up(word: str) -> str:
    """Look a word up."""
    return word


PROGRAMS = {
    "ReAct": (lambda: ReAct("question -> answer", tools=[look_up]), 2),
    "a dspy.Module": (lambda: dspy.Predict("question -> answer"), 1),
}


@pytest.mark.parametrize("autolog", [False, True])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", PROGRAMS)
def test_lm_spans_and_the_trace_have_the_token_usage(traced: None, name: str, stream: bool, autolog: bool):
    build, calls = PROGRAMS[name]
    program = build()
    replies = (
        [call("look_up", word="a"), finish(answer="12")]
        if calls == 2
        else ["[[ ## answer ## ]]\n12\n\n[[ ## completed ## ]]"]
    )
    program.set_lm(ScriptedLM(*replies))
    served = ResponsesAdapter(program)
    mlflow.dspy.autolog(disable=not autolog)
    try:
        response = (
            list(served.predict_stream(QUESTION))[-1].response if stream else served.predict(QUESTION).model_dump()
        )
    finally:
        mlflow.dspy.autolog(disable=True)
    mlflow.flush_trace_async_logging()
    trace = mlflow.get_trace(mlflow.get_last_active_trace_id())
    spans = [span for span in trace.data.spans if span.span_type in ("CHAT_MODEL", "LLM")]
    assert sum("mlflow.chat.tokenUsage" in span.attributes for span in spans) == calls
    assert trace.info.token_usage["input_tokens"] == response["usage"]["input_tokens"] > 0
    assert trace.info.token_usage["output_tokens"] == response["usage"]["output_tokens"] > 0


class _CachingEngine:
    """Replies in order, each with 100 input tokens, 64 of them cached and 16 written to the cache."""

    supports_function_calling = supports_response_schema = False

    def __init__(self, *texts: str):
        self._texts = iter(texts)

    def complete(self, request: Request) -> Response:
        usage = Usage(input_tokens=100, output_tokens=5, cache_read_tokens=64, cache_write_tokens=16)
        message = Message.assistant(TextPart(next(self._texts)))
        return Response(id=None, model=request.model, message=message, finish_reason="stop", usage=usage)


def caching(program: Any, *texts: str) -> Any:
    program.set_lm(dspy.LM("openai/caching", engine=_CachingEngine(*texts), cache=False))
    return program


class Twice(dspy.Module):
    """Calls its LM through a predictor, and without one."""

    signature = "question -> answer"

    def __init__(self) -> None:
        super().__init__()
        self.predict = dspy.Predict("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        self.predict.lm("Is this a question? " + question)
        return self.predict(question=question)


SCRIPT = tuple(json.dumps(reply) for reply in (call("look_up", word="a"), finish(answer="12")))
ANSWER = "[[ ## answer ## ]]\n12\n\n[[ ## completed ## ]]"
CACHING: dict[str, Any] = {
    "react": lambda: caching(ReAct("question -> answer", tools=[look_up]), *SCRIPT),
    "module": lambda: caching(Twice(), "yes", ANSWER),
}
COUNTS = {
    "input_tokens": 200,
    "output_tokens": 10,
    "total_tokens": 210,
    "cache_read_input_tokens": 128,
    "cache_creation_input_tokens": 32,
}


@pytest.mark.parametrize("autolog", [False, True])
@pytest.mark.parametrize("name", CACHING)
def test_cached_tokens_are_in_lm_spans_and_in_the_trace_once(traced: None, name: str, autolog: bool):
    served = ResponsesAdapter(CACHING[name]())
    mlflow.dspy.autolog(disable=not autolog)
    try:
        usage = served.predict(QUESTION).model_dump()["usage"]
    finally:
        mlflow.dspy.autolog(disable=True)
    mlflow.flush_trace_async_logging()
    trace = mlflow.get_trace(mlflow.get_last_active_trace_id())
    assert trace.info.token_usage == COUNTS
    assert (usage["input_tokens"], usage["input_tokens_details"]["cached_tokens"]) == (200, 128)
    lm_spans = [span for span in trace.data.spans if span.span_type in ("CHAT_MODEL", "LLM")]
    spans = [span.attributes.get("mlflow.chat.tokenUsage") for span in lm_spans]
    counted = 1 if name == "module" and autolog else 2  # autolog has the call without a predictor in the module's span
    assert [each for each in spans if each] == [{name: count // 2 for name, count in COUNTS.items()}] * counted


@pytest.mark.parametrize("autolog", [False, True])
@pytest.mark.parametrize("way", ["evaluate", "predict_fn"])
@pytest.mark.parametrize("name", CACHING)
def test_the_traces_of_an_evaluation_have_the_token_usage_once(traced: None, name: str, way: str, autolog: bool):
    program = CACHING[name]()
    mlflow.dspy.autolog(disable=not autolog)
    try:
        if way == "evaluate":
            oneturn.evaluate(program, [{"question": "?"}], lambda *_: 1.0, inputs=["question"], trace=True)
        else:
            predict_fn(program)(question="?")
    finally:
        mlflow.dspy.autolog(disable=True)
    mlflow.flush_trace_async_logging()
    (trace,) = mlflow.search_traces(return_type="list", max_results=1)
    assert trace.info.token_usage == COUNTS


def test_the_context_of_a_request_is_the_session_and_the_user(traced: None):
    context = {"conversation_id": "conv-1", "user_id": "alice"}
    with oneturn.running_server(adapter(finish(answer="12"), finish(answer="12"))) as url:
        reply = oneturn.query(url, "How many?", context=context)
    mlflow.flush_trace_async_logging()
    metadata = mlflow.get_trace(reply.trace_id).info.trace_metadata
    assert (metadata["mlflow.trace.session"], metadata["mlflow.trace.user"]) == ("conv-1", "alice")


ANSWER_AND_END = """
import mlflow, oneturn
from oneturn import ReAct, ResponsesAdapter
from oneturn.evaluation.scorers import predict_fn
from oneturn.testing import ScriptedLM, finish
mlflow.set_tracking_uri("sqlite:///t.db")
program = ReAct("question -> answer", tools=[])
program.set_lm(ScriptedLM(finish(answer="12")))
"""
ENDS = {
    "adapter": 'ResponsesAdapter(program).predict({"input": [{"role": "user", "content": "How many?"}]})',
    "evaluate": 'oneturn.evaluate(program, [{"question": "q"}], lambda *_: 1, inputs=["question"], trace=True)',
    "predict_fn": 'predict_fn(program)(question="How many?")',
}

COUNT_THREADS = """
import threading
from mlflow.environment_variables import MLFLOW_ASYNC_TRACE_LOGGING_MAX_WORKERS
running = [thread for thread in threading.enumerate() if thread.name.startswith("MlflowTraceLoggingWorker")]
print(MLFLOW_ASYNC_TRACE_LOGGING_MAX_WORKERS.get() - len(running))
"""


@pytest.mark.parametrize("way", ENDS)
def test_traces_are_flushed_before_the_process_ends(way: str, tmp_path: Path):
    environment = {**os.environ, "PYTHONPATH": str(Path(oneturn.__file__).parents[1])}
    command = [sys.executable, "-c", ANSWER_AND_END + ENDS[way] + COUNT_THREADS]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stdout == "0\n", "Python 3.12 starts no thread at its end: all that write traces have been started"
    assert "before program exit" not in run.stderr  # MLflow's own flush, which comes too late on Python 3.12
    with contextlib.closing(sqlite3.connect(tmp_path / "t.db")) as database:
        assert database.execute("SELECT count(*) FROM spans").fetchone()[0] >= 2
