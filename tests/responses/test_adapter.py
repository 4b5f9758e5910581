"""Serving a program over the Responses protocol, as a stream and as one response."""

from __future__ import annotations

import json
import threading
from collections import Counter
from typing import Any, Literal

import dspy
import mlflow
import openai.types.responses as openai_types
import pytest
from dspy.lm15 import AuthError, ContextLengthError, RateLimitError, ServerError, TimeoutError
from mlflow.entities import Document, SpanType
from mlflow.types.responses import ResponsesAgentRequest, ResponsesAgentResponse, ResponsesAgentStreamEvent
from pydantic import TypeAdapter

import oneturn
from oneturn import Citation, ReAct, ResponsesAdapter
from oneturn.core.run_context import RunContext
from oneturn.core.steps import Answer, AnswerDelta, Thought, ToolCall, ToolResult
from oneturn.core.usage import Usage
from oneturn.errors import AgentError, ProgramError
from oneturn.retrieval import Bm25Retriever
from oneturn.testing import ScriptedLM, ScriptedRequest, call, finish

TERMINAL = ("response.completed", "response.incomplete", "response.failed")
OPENAI_EVENT = TypeAdapter(openai_types.ResponseStreamEvent)
SECRET = "sk-do-not-tell"


class Ask(dspy.Signature):
    """Answer from the shelf."""

    question: str = dspy.InputField()
    language: Literal["en", "de"] = dspy.InputField(default="en")
    answer: str = dspy.OutputField()
    citations: list[Citation] = dspy.OutputField()
    sure: bool = dspy.OutputField()


SHELF = Bm25Retriever(
    [
        Document("The red book has 99 pages.", {"title": "Red", "doc_uri": "shelf/red"}, id="red"),
        Document("The blue book has 12 pages.", id="blue"),
    ]
)


def find(query: str) -> list[Document]:
    """Find books."""
    return SHELF.search(query)


def leak() -> str:
    """Read the secret."""
    raise RuntimeError(SECRET)


SCRIPT = (
    call("find", "look for it", query="red book"),
    finish("found", citations=["red", "red"], sure=True, answer="It has 99 pages."),
)


def adapter(*replies: Any, signature: Any = Ask, tools: Any = (find, leak), **options: Any) -> ResponsesAdapter:
    program = ReAct(signature, tools=tools, **options)
    program.set_lm(ScriptedLM(*(replies or SCRIPT)))
    return ResponsesAdapter(program)


def request(content: Any = "How thick is the red book?", **fields: Any) -> ResponsesAgentRequest:
    return ResponsesAgentRequest(input=[{"role": "user", "content": content}], **fields)


def events(agent: ResponsesAdapter, body: ResponsesAgentRequest | None = None) -> list[dict[str, Any]]:
    return [event.model_dump() for event in agent.predict_stream(body or request())]


def of_type(stream: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in stream if event["type"] == kind]


def done_items(stream: list[dict[str, Any]], kind: str | None = None) -> list[dict[str, Any]]:
    items = [event["item"] for event in of_type(stream, "response.output_item.done")]
    return [item for item in items if kind in (None, item["type"])]


FINISHING = [
    SCRIPT,
    (finish(answer="12", citations=["blue"], sure=True), finish(answer="12", citations=[], sure=False)),
    ("not a step", call("leak"), call("nothing"), finish(answer="", citations=[], sure=False)),
    (call("find", query="book"), call("find", query="book"), finish(answer="Zwölf “🤝”", citations=[], sure=True)),
]
FAILING = [("no", "no"), (finish(), finish()), (finish(answer="Twel", sure=3), finish()), (RateLimitError(SECRET),)]


# ---- the stream


@pytest.mark.parametrize("script", [*FINISHING, *FAILING])
def test_a_stream_is_valid_for_every_outcome(script: Any):
    stream = events(adapter(*script, max_iters=4 if script in FINISHING else 2))
    assert [event["sequence_number"] for event in stream] == list(range(len(stream)))
    assert [event["type"] for event in stream[:2]] == ["response.created", "response.in_progress"]
    terminal = [event["type"] for event in stream if event["type"] in TERMINAL]
    assert terminal == [stream[-1]["type"]] == ["response.completed" if script in FINISHING else "response.failed"]
    assert [event["type"] for event in stream[:-1]].count("error") == (script in FAILING)

    added, done = of_type(stream, "response.output_item.added"), of_type(stream, "response.output_item.done")
    assert [event["item"]["id"] for event in added] == [event["item"]["id"] for event in done]
    assert max(Counter(event["item"]["id"] for event in added).values(), default=1) == 1
    assert [event["output_index"] for event in done] == list(range(len(done)))
    for finished in of_type(stream, "response.output_text.done"):
        deltas = [e for e in of_type(stream, "response.output_text.delta") if e["item_id"] == finished["item_id"]]
        assert "".join(delta["delta"] for delta in deltas) == finished["text"]
        (message,) = (item for item in done_items(stream, "message") if item["id"] == finished["item_id"])
        assert message["content"][0]["text"] == finished["text"]
    calls = [item["call_id"] for item in done_items(stream, "function_call")]
    assert [item["call_id"] for item in done_items(stream, "function_call_output")] == calls
    assert len(set(calls)) == len(calls)
    if script in FINISHING:
        assert stream[-1]["response"]["output"] == done_items(stream)
        assert [item["status"] for item in done_items(stream, "message")][-1] == "completed"


@pytest.mark.parametrize("script", [*FINISHING, *FAILING])
def test_every_event_is_valid_for_mlflow_and_the_openai_client(script: Any):
    stream = events(adapter(*script, max_iters=4 if script in FINISHING else 2))
    for event in stream:
        assert ResponsesAgentStreamEvent.model_validate(event).model_dump() == event
        checked = json.loads(json.dumps(event))
        if event["type"] == "response.failed":  # the client reads any code; its types list those of OpenAI's own models
            assert event["response"]["error"]["code"] == stream[-2]["code"]
            checked["response"]["error"]["code"] = "server_error"
        OPENAI_EVENT.validate_python(checked)


def test_items_are_in_the_order_of_the_run():
    stream = events(adapter())
    kinds = ["reasoning", "function_call", "function_call_output", "reasoning", "message"]
    assert [item["type"] for item in done_items(stream)] == kinds
    assert done_items(stream, "function_call")[0]["name"] == "find"
    assert json.loads(done_items(stream, "function_call")[0]["arguments"]) == {"query": "red book"}
    assert done_items(stream, "function_call_output")[0]["output"].startswith("[red] The red book has 99 pages.")


def test_the_answer_streams_while_it_is_written():
    deltas = of_type(events(adapter()), "response.output_text.delta")
    assert len(deltas) > 2
    assert "".join(delta["delta"] for delta in deltas) == "It has 99 pages."


def test_citations_become_annotations_of_retrieved_documents():
    stream = events(adapter())
    (added,) = of_type(stream, "response.output_text.annotation.added")
    expected = {"type": "url_citation", "title": "Red", "url": "shelf/red", "start_index": 0, "end_index": 16}
    assert added["annotation"] == expected
    (message,) = done_items(stream, "message")
    assert message["content"][0]["annotations"] == [expected]
    assert added["item_id"] == message["id"]


def test_a_document_without_title_and_url_is_cited_by_its_id():
    script = (call("find", query="blue book"), finish(answer="12", citations=["blue"], sure=True))
    (added,) = of_type(events(adapter(*script)), "response.output_text.annotation.added")
    assert (added["annotation"]["title"], added["annotation"]["url"]) == ("blue", "blue")


def test_the_terminal_event_has_the_other_outputs_and_the_usage():
    completed = events(adapter())[-1]
    response = completed["response"]
    assert response["custom_outputs"] == {"citations": ["red", "red"], "sure": True}
    assert response["status"] == "completed"
    usage = response["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert usage["output_tokens"] > 0


@pytest.mark.parametrize("script", FINISHING)
def test_predict_returns_the_response_of_the_stream(script: Any):
    response = adapter(*script).predict(request())
    assert isinstance(response, ResponsesAgentResponse)
    streamed = events(adapter(*script))[-1]["response"]
    assert _without_ids(response.model_dump()["output"]) == _without_ids(streamed["output"])
    assert response.custom_outputs == streamed["custom_outputs"]
    assert response.usage.total_tokens == streamed["usage"]["total_tokens"] > 0


def _without_ids(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in item.items() if k not in ("id", "call_id") and v is not None} for item in items]


def test_a_program_is_built_once_on_the_first_request():
    built = []

    def build() -> ReAct:
        built.append(True)
        program = ReAct(Ask, tools=[find])
        program.set_lm(ScriptedLM(*SCRIPT, *SCRIPT))
        return program

    agent = ResponsesAdapter(build)
    assert built == []
    agent.load_context(None)
    agent.predict(request())
    agent.predict(request())
    assert built == [True]


def test_closing_the_stream_ends_the_run():
    agent = adapter()
    stream = agent.predict_stream(request())
    while next(stream).type != "response.output_item.done":
        pass
    stream.close()
    assert len(agent.program.step.lm.requests) == 1


class Scripted:
    """A program that yields the given steps."""

    signature = Ask
    answer_field = "answer"
    citing_fields = ()

    def __init__(self, *steps: Any):
        self._steps = steps

    def steps(self, **inputs: Any) -> Any:
        yield from self._steps


LOOK_UP = (ToolCall("c1", "find", {}), ToolResult("c1", "find", "12"))


def answered(text: str) -> tuple[Any, ...]:
    return Answer(dspy.Prediction(answer=text, citations=[], sure=True)), Usage(1)


INTERRUPTED = {
    "continues": (AnswerDelta("It "), *LOOK_UP, AnswerDelta("is "), AnswerDelta("12"), *answered("It is 12")),
    "no more text": (AnswerDelta("It is 12"), *LOOK_UP, *answered("It is 12")),
    "twice": (AnswerDelta("It "), *LOOK_UP, AnswerDelta("is 12"), Thought("Hm."), *answered("It is 12")),
    "starts over": (AnswerDelta("No"), *LOOK_UP, AnswerDelta("It is 12", attempt=1), *answered("It is 12")),
}


@pytest.mark.parametrize("case", INTERRUPTED)
def test_the_last_message_has_the_complete_text_after_an_interruption(case: str):
    stream = events(ResponsesAdapter(Scripted(*INTERRUPTED[case])))
    indexes = [event["output_index"] for event in stream if "output_index" in event]
    assert indexes == sorted(indexes)
    *interrupted, last = done_items(stream, "message")
    assert {message["status"] for message in interrupted} == {"incomplete"}
    assert (last["content"][0]["text"], last["status"]) == ("It is 12", "completed")
    deltas = [e["delta"] for e in of_type(stream, "response.output_text.delta") if e["item_id"] == last["id"]]
    assert "".join(deltas) == "It is 12"


# ---- a run that is stopped


def stopped_in_a_tool(*replies: Any) -> tuple[ResponsesAdapter, RunContext]:
    """An agent whose tool is running at the deadline, and the run context that the tool cancels."""
    run = RunContext()

    def patient() -> str:
        """Wait until cancelled."""
        run.cancel("deadline_exceeded")
        while not oneturn.cancelled():
            threading.Event().wait(0.005)
        return "in vain"

    return adapter(*replies, call("patient"), tools=[find, patient]), run


def test_a_deadline_ends_a_request_as_incomplete_with_the_finished_items():
    agent, run = stopped_in_a_tool(call("find", "look for it", query="red book"))
    with run.active():
        stream = events(agent)
    last = stream[-1]["response"]
    assert (stream[-1]["type"], last["status"]) == ("response.incomplete", "incomplete")
    assert last["incomplete_details"] == {"reason": "deadline_exceeded"}
    calls, results = done_items(stream, "function_call"), done_items(stream, "function_call_output")
    assert [item["name"] for item in calls] == ["find", "patient"]
    assert [item["call_id"] for item in results] == [item["call_id"] for item in calls]
    assert results[-1]["output"] == "Error: the run ended before this tool did."
    assert last["output"] == done_items(stream)


def test_predict_returns_the_finished_items_at_the_deadline(recwarn: pytest.WarningsRecorder):
    agent, run = stopped_in_a_tool()
    with run.active():
        response = agent.predict(request())
    assert response.status == "incomplete"
    assert response.incomplete_details.reason == "deadline_exceeded"
    assert [item.type for item in response.output] == ["function_call", "function_call_output"]
    assert not [warning for warning in recwarn if "reason" in str(warning.message)]


def test_a_deadline_ends_an_lm_call_too():
    def slow(lm_request: ScriptedRequest) -> Any:
        assert cancelled.wait(30)
        return finish(answer="late", citations=[], sure=True)

    cancelled = threading.Event()
    program = ReAct(Ask, tools=[])
    program.set_lm(ScriptedLM(slow))
    stream = events(ResponsesAdapter(program, deadline=0.05))
    cancelled.set()
    assert stream[-1]["type"] == "response.incomplete"
    assert done_items(stream) == []


def test_a_tool_s_progress_is_in_the_stream():
    def count() -> str:
        """Count."""
        oneturn.progress("half", 0.5)
        return "done"

    stream = events(adapter(call("count"), finish(answer="x", citations=[], sure=True), tools=[count]))
    (progress,) = [event for event in stream if event.get("progress")]
    assert progress["type"] == "response.in_progress"
    assert progress["progress"]["message"] == "half"
    assert progress["progress"]["fraction"] == 0.5
    assert progress["progress"]["call_id"] == done_items(stream, "function_call")[0]["call_id"]


# ---- the request


def lm_prompt(agent: ResponsesAdapter) -> str:
    return agent.program.step.lm.requests[0].messages[1]["content"]


@pytest.mark.parametrize(
    ("sent", "question"),
    [
        ([{"role": "user", "content": "How?"}], "How?"),
        ([{"role": "user", "content": [{"type": "input_text", "text": "How?"}]}], "How?"),
        (
            [{"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]}],
            "a\nb",
        ),
        ([{"role": "user", "content": "How?"}, {"role": "assistant", "content": "So."}], "How?"),
        ([{"role": "user", "content": "This."}, {"type": "message", "role": "user", "content": "So?"}], "This.\n\nSo?"),
        (
            [
                {"role": "user", "content": "Now"},
                {"type": "function_call", "call_id": "1", "name": "find", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "1", "output": "x"},
            ],
            "Now",
        ),
    ],
)
def test_the_user_messages_since_the_last_answer_are_the_question(sent: list[dict[str, Any]], question: str):
    agent = adapter()
    agent.predict(ResponsesAgentRequest(input=sent))
    assert lm_prompt(agent) == f"question: {question}\nlanguage: en"


def test_custom_inputs_fill_the_other_inputs():
    agent = adapter()
    agent.predict(request(custom_inputs={"language": "de"}))
    assert lm_prompt(agent) == "question: How thick is the red book?\nlanguage: de"


class Count(dspy.Signature):
    """Count."""

    question: str = dspy.InputField()
    limit: int = dspy.InputField()
    answer: str = dspy.OutputField()


BAD_REQUESTS = [
    (
        {"custom_inputs": {"limit": 3, "colour": "red"}},
        "custom_inputs has an unknown field 'colour'; known: question, limit.",
    ),
    ({}, "custom_inputs has no 'limit', a required field of type int."),
    (
        {"custom_inputs": {"limit": "many"}},
        "'limit' must be of type int: Input should be a valid integer, unable to parse string as an integer.",
    ),
    (
        {"input": [{"role": "system", "content": "Be kind."}]},
        'The request has no user message; send input=[{"role": "user", "content": "…"}].',
    ),
    (
        {"input": []},
        'The request has no user message; send input=[{"role": "user", "content": "…"}].',
    ),
    (
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
        "An input_image needs an image_url: an http(s) URL or a data: URI.",
    ),
]


@pytest.mark.parametrize(("fields", "message"), BAD_REQUESTS, ids=[message for _, message in BAD_REQUESTS])
def test_an_invalid_request_fails_with_the_reason(fields: dict[str, Any], message: str):
    program = ReAct(Count, tools=[])
    program.set_lm(ScriptedLM())
    bad = ResponsesAgentRequest(**{"input": [{"role": "user", "content": "?"}], **fields})
    (error,) = of_type(events(ResponsesAdapter(program), bad), "error")
    assert (error["code"], error["message"]) == ("invalid_request", message)


# ---- failures


class Leaky:
    """Metadata that raises on access, as from a bug in a tool."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(SECRET)


def bad() -> list[Document]:
    """Find."""
    return [Document("x", metadata=Leaky(), id="x")]


FAILURES = [
    (
        lambda: adapter("no", max_iters=1),
        "invalid_output",
        "The run ended without an answer: the LM's last reply can't",
    ),
    (lambda: adapter(call("leak"), max_iters=1), "max_iters", "The run ended without an answer: 1 steps were taken"),
    (
        lambda: adapter(ContextLengthError(SECRET)),
        "context_length_exceeded",
        "The run ended without an answer: the prompt is too long for the LM.",
    ),
    (
        lambda: adapter(RateLimitError(SECRET)),
        "rate_limit_exceeded",
        "The language model is rate-limited; retry later.",
    ),
    (
        lambda: adapter(AuthError(SECRET)),
        "lm_unusable",
        "The language model is unusable (LMAuthError); the operator must fix its credentials, billing or settings.",
    ),
    (
        lambda: adapter(ServerError(SECRET)),
        "lm_error",
        "The call to the language model failed (LMServerError); retry later.",
    ),
    (
        lambda: adapter(TimeoutError(SECRET)),
        "lm_timeout",
        "The language model timed out; retry later.",
    ),
    (
        lambda: adapter(call("bad"), finish(answer="x", citations=["x"], sure=True), tools=[bad]),
        "server_error",
        "The agent failed (RuntimeError); see its trace for details.",
    ),
    (
        lambda: ResponsesAdapter(ReAct(Ask, tools=[])),
        "server_error",
        "The agent failed (ProgramError); see its trace for details.",
    ),
]


@pytest.mark.parametrize(("build", "code", "message"), FAILURES, ids=[message for _, _, message in FAILURES])
def test_a_failure_ends_the_stream_and_is_raised_by_predict(build: Any, code: str, message: str):
    stream = events(build())
    error, last = stream[-2:]
    assert (error["type"], error["code"]) == ("error", code)
    assert error["message"].startswith(message)
    assert (last["type"], last["response"]["status"]) == ("response.failed", "failed")
    assert last["response"]["error"]["message"] == error["message"]
    assert last["response"]["output"] == done_items(stream)
    for private in (SECRET, "Traceback", __file__):
        assert private not in json.dumps(stream)
    with pytest.raises(AgentError) as caught:
        build().predict(request())
    assert (caught.value.code, str(caught.value)) == (code, error["message"])


def test_a_failure_to_build_the_program_is_an_error_event():
    def build() -> ReAct:
        raise ProgramError("There is no compiled program /srv/x.json. Make one with: oneturn compile")

    (error,) = of_type(events(ResponsesAdapter(build)), "error")
    assert error["message"] == "The agent failed (ProgramError); see its trace for details."  # hides the path


# ---- traces


def spans_below(trace: Any, parent: str | None) -> list[Any]:
    return [span for span in trace.data.spans if span.parent_id == parent]


@pytest.mark.parametrize("streaming", [True, False])
def test_a_trace_has_spans_of_the_agent_lm_calls_tools_and_retrievers(traced: None, streaming: bool):
    agent = adapter()
    output = events(agent)[-1]["response"]["output"] if streaming else agent.predict(request()).model_dump()["output"]
    trace = mlflow.get_trace(mlflow.get_last_active_trace_id())
    (root,) = spans_below(trace, None)
    assert root.span_type == SpanType.AGENT
    below = spans_below(trace, root.span_id)
    assert [span.span_type for span in below] == [SpanType.CHAT_MODEL, SpanType.TOOL, SpanType.CHAT_MODEL]
    (retrieved,) = spans_below(trace, below[1].span_id)
    assert retrieved.span_type == SpanType.RETRIEVER
    assert retrieved.outputs[0]["id"] == "red"
    assert [item["id"] for item in root.outputs["output"]] == [item["id"] for item in output]
    assert root.status.status_code == "OK"


def test_a_trace_has_the_original_exception(traced: None):
    events(adapter(RateLimitError(SECRET)))
    trace = mlflow.get_trace(mlflow.get_last_active_trace_id())
    (root,) = spans_below(trace, None)
    assert root.status.status_code == "ERROR"
    assert any(SECRET in str(event.attributes) for event in root.events)


def test_the_events_of_a_server_are_those_of_mlflow_byte_for_byte():
    served = adapter(*SCRIPT)
    for event in served.stream(served.parse(request())):
        dumped = ResponsesAgentStreamEvent.model_validate(event).model_dump()
        if dumped["custom_outputs"] is None:
            del dumped["custom_outputs"]
        assert json.dumps(event) == json.dumps(dumped)
