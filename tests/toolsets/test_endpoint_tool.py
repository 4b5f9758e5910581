"""A served agent as a tool of another: real HTTP servers answer."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import dspy
import pydantic
import pytest
from mlflow.entities import Document

import oneturn
from oneturn.core.background import run_in_thread
from oneturn.core.run_context import RunContext, current_run
from oneturn.core.steps import Answer, Step, ToolProgress, ToolResult
from oneturn.core.usage import Usage
from oneturn.errors import ProgramError, RunCancelled, ToolError
from oneturn.testing import ScriptedLM, call, finish, sections
from oneturn.toolsets._nested_run import run_nested

PATIENCE = 30  # seconds until a test gives up

FEES = Document("A late book costs 4 euros.", {"title": "Fees", "doc_uri": "https://library.example/fees"}, "fees")


def search_handbook(query: str) -> list[Document]:
    """Search the handbook."""
    oneturn.progress("page 1")
    return [FEES]


class Ask(dspy.Signature):
    """Help a guest."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()
    citations: list[oneturn.Citation] = dspy.OutputField()


def agent(*script: Any, tools: Any, signature: Any = Ask) -> oneturn.ReAct:
    program = oneturn.ReAct(signature, tools=tools)
    program.set_lm(ScriptedLM(*script))
    return program


def served(*script: Any, tools: Any = (search_handbook,), signature: Any = Ask) -> oneturn.ResponsesAdapter:
    return oneturn.ResponsesAdapter(agent(*script, tools=tools, signature=signature))


def of(kind: type[Step], steps: list[Step]) -> list[Any]:
    return [step for step in steps if isinstance(step, kind)]


def steps_with(tool: dspy.Tool, citations: Any = (), **args: Any) -> list[Step]:
    outer = agent(call(str(tool.name), **args), finish(answer="x", citations=list(citations)), tools=[tool])
    return list(outer.steps(question="?"))


def result_of(tool: dspy.Tool, **args: Any) -> ToolResult:
    (result,) = of(ToolResult, steps_with(tool, **args))
    return result


class Endpoint:
    """What a server of our own was asked."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []


@contextmanager
def answering(*events: dict[str, Any], status: int = 200) -> Iterator[Endpoint]:
    """A server that answers every request with these events, or with the one event as its body."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            endpoint.bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            endpoint.keys.append(self.headers["authorization"])
            self.send_response(status)
            self.send_header("content-type", "text/event-stream" if status == 200 else "application/json")
            self.end_headers()
            for event in events:
                payload = json.dumps(event)
                self.wfile.write((f"data: {payload}\n\n" if status == 200 else payload).encode())

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        endpoint = Endpoint(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield endpoint
        finally:
            server.shutdown()
            thread.join()


def completed(*parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": list(parts)}
    return {"type": "response.completed", "response": {"id": "resp_1", "output": [message], **more}}


def said(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": []}


# ---- our own servers


def test_a_served_agent_answers_with_sources_and_progress_and_its_cost_counts():
    inner = served(call("search_handbook", query="fees"), finish(answer="Four euros.", citations=["fees"]))
    with oneturn.running_server(inner) as url:
        tool = oneturn.endpoint_tool(url, "handbook", "Knows the handbook.")
        steps = steps_with(tool, [FEES.metadata["doc_uri"]], question="fees?")
    (result,), (answer,), (usage,) = of(ToolResult, steps), of(Answer, steps), of(Usage, steps)
    assert result.output == "Four euros.\n\nSources: [https://library.example/fees] Fees"
    assert [document.metadata["title"] for document in result.documents] == ["Fees"]
    assert answer.prediction.citations == ["https://library.example/fees"]
    progress = of(ToolProgress, steps)
    assert [step.message for step in progress if step.message] == ["search_handbook: fees", "search_handbook: page 1"]
    assert [step.item["type"] for step in progress if step.item] == ["function_call", "function_call_output", "message"]
    read = sum(len(request.text.split()) for request in inner.program.step.lm.requests)
    assert usage.lm_calls == 3
    assert result.usage.input_tokens == read
    assert usage.input_tokens > read


def test_a_signature_tells_what_is_sent_and_read():
    class Price(dspy.Signature):
        """Price a basket."""

        question: str = dspy.InputField(desc="What to buy.")
        guests: int = dspy.InputField()
        answer: str = dspy.OutputField()
        euros: float = dspy.OutputField()

    reply = finish(answer="Twelve euros.", euros=12.0)
    inner = served(reply, tools=[], signature=Price)
    with oneturn.running_server(inner) as url:
        tool = oneturn.endpoint_tool(url, "prices", "Prices a basket.", inputs=Price)
        assert list(tool.args) == ["question", "guests"]
        assert tool.args["question"]["description"] == "What to buy."
        assert result_of(tool, question="tea", guests=3).output == '{"answer": "Twelve euros.", "euros": 12.0}'
    assert "guests: 3" in inner.program.step.lm.requests[0].text


def test_an_agent_without_a_question_is_asked_by_its_fields():
    form = "order: int -> euros: float"
    predict = dspy.Predict(form)
    predict.set_lm(ScriptedLM(sections(euros=4.5)))
    with oneturn.running_server(oneturn.ResponsesAdapter(predict)) as url:
        tool = oneturn.endpoint_tool(url, "price_of", "Prices an order.", inputs=form)
        assert list(tool.args) == ["order"]
        assert result_of(tool, order=7).output == '{"euros": 4.5}'


def test_a_request_that_the_agent_refuses_is_told_why():
    with oneturn.running_server(served(tools=[])) as url:
        tool = oneturn.endpoint_tool(url, "handbook", "Knows.", inputs="question, tone: str -> answer")
        output = result_of(tool, question="?", tone="dry").output
    assert output.startswith("Error: the agent refused the request: custom_inputs has an unknown field 'tone'")


def test_what_fails_in_the_served_agent_is_one_line():
    with oneturn.running_server(served(*["no step"] * 6)) as url:
        result = result_of(oneturn.endpoint_tool(url, "handbook", "Knows."), question="?")
    assert result.is_error
    assert result.output == "Error: the agent gave no answer (invalid_output); do without it, or rephrase the request"


# ---- anybody's


class Questioned(pydantic.BaseModel):
    question: str


class Tone(pydantic.BaseModel):
    tone: str = pydantic.Field(description="How to say it.", alias="Tone")
    most: int = pydantic.Field(3, ge=1)


def test_a_model_s_fields_are_custom_inputs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("THEIR_TOKEN", "key-1")
    with answering(completed(said("Dry."))) as endpoint:
        tool = oneturn.endpoint_tool(endpoint.url, "say", "Says.", inputs=Tone, api_key_env="THEIR_TOKEN")
        assert endpoint.bodies == []
        assert tool.args["tone"]["description"] == "How to say it."
        with dspy.context(lm=None):
            assert tool(question="Rain?", tone="dry") == "Dry."
    (body,) = endpoint.bodies
    assert body["input"] == [{"role": "user", "content": "Rain?"}]
    assert body["custom_inputs"] == {"Tone": "dry", "most": 3}
    assert endpoint.keys == ["Bearer key-1"]


def test_each_event_can_be_heard():
    heard: list[str] = []
    with answering({"type": "response.output_text.delta", "delta": "D"}, completed(said("D"))) as endpoint:
        tool = oneturn.endpoint_tool(
            endpoint.url, "say", "Says.", on_event=lambda event: heard.append(str(event["type"]))
        )
        result_of(tool, question="?")
    assert heard == ["response.output_text.delta", "response.completed"]


SECRET = "sk-proj-1234567890abcdef"
UNANSWERED = "Error: the agent gave no answer ({}); do without it, or rephrase the request"
ENDINGS: dict[str, tuple[dict[str, Any], int, str]] = {
    "incomplete": (
        {"type": "response.incomplete", "response": {"incomplete_details": {"reason": "max_output_tokens"}}},
        200,
        UNANSWERED.format("max_output_tokens"),
    ),
    "refusal": (
        completed({"type": "refusal", "refusal": "I won't."}),
        200,
        "Error: the agent refused to answer; do without it, or rephrase the request",
    ),
    "a crash": ({"error": {"message": f"/srv/app.py: {SECRET}", "code": "oops"}}, 500, UNANSWERED.format("oops")),
    "a wrong key": (
        {"error": {"message": f"Incorrect API key provided: {SECRET}", "code": "invalid_api_key"}},
        401,
        UNANSWERED.format("invalid_api_key"),
    ),
    "a bad request that repeats the key": (
        {"error": {"message": f"no tone for 'local-{SECRET}'", "code": "bad"}},
        400,
        "Error: the agent refused the request: no tone for '…'",
    ),
    "no end": ({"type": "response.created", "response": {}}, 200, UNANSWERED.format("stream_ended")),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_however_it_ends_the_outer_run_goes_on(ending: str, monkeypatch: pytest.MonkeyPatch):
    event, status, payload = ENDINGS[ending]
    monkeypatch.setenv("THEIR_TOKEN", f"local-{SECRET}")
    with answering(event, status=status) as endpoint:
        steps = steps_with(
            oneturn.endpoint_tool(endpoint.url, "them", "They know.", api_key_env="THEIR_TOKEN"), question="?"
        )
    assert of(ToolResult, steps)[0].output == payload
    assert of(Answer, steps)


def test_an_endpoint_that_isn_t_there_is_one_line():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        output = result_of(oneturn.endpoint_tool(url, "them", "They know."), question="?").output
    assert output == UNANSWERED.format("unreachable")


@oneturn.tool(approval=True)
def refund(euros: float) -> str:
    """Give money back."""
    raise AssertionError("nobody approved it")


NEEDS_APPROVAL = (
    "Error: the agent gave no answer: its call of refund needs a person's approval, which can't be given inside a tool "
    "call. The call was not run; do without it"
)


def test_an_agent_that_waits_for_an_approval_has_not_answered():
    inner = agent(call("refund", euros=4), tools=[refund], signature="question -> answer")
    adapter = oneturn.ResponsesAdapter(inner, approvals=oneturn.Approvals("0123456789abcdef" * 2))
    with oneturn.running_server(adapter) as url:
        result = result_of(oneturn.endpoint_tool(url, "them", "They know."), question="?")
    assert (result.output, result.is_error) == (NEEDS_APPROVAL, True)


def test_an_agent_in_this_process_that_waits_for_an_approval_has_not_answered():
    inner = agent(call("refund", euros=4), tools=[refund], signature="question -> answer")
    result = result_of(oneturn.agent_tool(inner, "them"), question="?")
    assert (result.output, result.is_error) == (NEEDS_APPROVAL, True)


def test_a_response_without_an_answer_is_a_failure():
    with answering({"type": "response.completed", "response": {"output": []}}) as endpoint:
        result = result_of(oneturn.endpoint_tool(endpoint.url, "them", "They know."), question="?")
    assert result.output == "Error: the agent gave no answer; do without it, or rephrase the request"


def test_a_missing_token_is_told_without_asking(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("THEIR_TOKEN", raising=False)
    tool = oneturn.endpoint_tool("http://127.0.0.1:1", "them", "They know.", api_key_env="THEIR_TOKEN")
    assert result_of(tool, question="?").output == UNANSWERED.format("no_token")


def test_what_can_not_be_a_tool_is_refused():
    for url, message in {
        "handbook": "isn.t an HTTP URL",
        "ftp://here": "isn.t an HTTP URL",
        "https://me:pass1@here": "contains credentials",
    }.items():
        with pytest.raises(ProgramError, match=message) as refused:
            oneturn.endpoint_tool(url, "them", "They know.")
        assert "pass1" not in str(refused.value)
    with pytest.raises(ProgramError, match=r"isn.t a valid tool name"):
        oneturn.endpoint_tool("http://here", "not a name", "They know.")
    with pytest.raises(ProgramError, match="neither a signature nor a pydantic model"):
        oneturn.endpoint_tool("http://here", "them", "They know.", inputs=3)  # type: ignore[arg-type]
    with pytest.raises(ProgramError, match="can't be read as a signature"):
        oneturn.endpoint_tool("http://here", "them", "They know.", inputs="no arrow")
    with pytest.raises(ProgramError, match="has a field 'question'"):
        oneturn.endpoint_tool("http://here", "them", "They know.", inputs=Questioned)


# ---- the connection


@contextmanager
def silent(headers: bool) -> Iterator[tuple[str, threading.Event, threading.Event]]:
    """A server that takes one request and then says no more; its events: it was asked, its client has gone."""
    asked, gone = threading.Event(), threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(PATIENCE)
            connection.recv(65536)
            if headers:
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
            asked.set()
            while connection.recv(65536):
                pass
            gone.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked, gone
        thread.join(PATIENCE)


@pytest.mark.parametrize("headers", [True, False], ids=["in the stream", "before the stream"])
def test_the_connection_of_a_run_that_is_stopped_is_closed(headers: bool):
    control = RunContext()
    with silent(headers) as (url, asked, gone):
        outer = agent(call("them", question="?"), tools=[oneturn.endpoint_tool(url, "them", "They know.")])

        def cancel() -> None:
            assert asked.wait(PATIENCE)
            control.cancel("client_gone")

        threading.Thread(target=cancel).start()
        with control.active(), pytest.raises(RunCancelled, match="client_gone"):
            list(outer.steps(question="?"))
        assert gone.wait(PATIENCE)


def test_what_a_tool_waits_for_is_broken_off_when_its_time_is_over():
    broken_off = threading.Event()

    def wait(tell: Any) -> None:  # as a query does
        with current_run().waking(broken_off.set):
            if oneturn.cancelled():
                broken_off.set()
            assert broken_off.wait(PATIENCE)
            raise ConnectionError("closed")

    with pytest.raises(ToolError, match=r"exceeded its timeout of 0.01 s"):
        run_nested("them", 0.01, lambda spend: run_in_thread(wait, lambda event: None))
    assert broken_off.wait(PATIENCE)


def test_a_query_of_a_run_that_is_stopped_is_no_failure_of_the_endpoint():
    control = RunContext()
    with silent(headers=True) as (url, asked, gone):

        def cancel() -> None:
            assert asked.wait(PATIENCE)
            control.cancel("client_gone")

        threading.Thread(target=cancel).start()
        with control.active(), pytest.raises(RunCancelled, match="client_gone"):
            oneturn.query(url, "?")
        assert gone.wait(PATIENCE)
