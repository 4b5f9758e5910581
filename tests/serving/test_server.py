"""A served agent, over real HTTP on a loopback port, with a scripted LM."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dspy
import httpx
import mlflow
import openai
import pytest
from dspy.lm15 import RateLimitError
from mlflow.pyfunc import ResponsesAgent
from mlflow.types.responses import ResponsesAgentResponse

import oneturn
from oneturn.config import AgentConfig, LMConfig, ServeConfig
from oneturn.core.steps import AnswerDelta, Step
from oneturn.errors import AgentError, ConfigError, EndpointError, OneTurnError, ProgramError
from oneturn.responses.reply import Reply
from oneturn.serving.request_limit import RequestLimit
from oneturn.serving.request_run import RequestRun
from oneturn.serving.served_agent import ServedAgent
from oneturn.serving.server import load_logged, logged_settings
from oneturn.serving.workers import AgentSource
from oneturn.testing import ScriptedLM, ScriptedRequest, call, finish

ROOT = Path(__file__).resolve().parents[2]
SECRET = "sk-very-secret"


class Ask(dspy.Signature):
    """Answer with the tool's result."""

    question: str = dspy.InputField()
    tone: str = dspy.InputField(default="plain")
    answer: str = dspy.OutputField()
    sure: bool = dspy.OutputField()


def look_up(word: str) -> str:
    """Look a word up."""
    if word == "boom":
        raise ValueError(SECRET)
    return f"meaning of {word}"


def adapter(*replies: Any) -> oneturn.ResponsesAdapter:
    program = oneturn.ReAct(Ask, tools=[look_up])
    program.set_lm(ScriptedLM(*replies))
    return oneturn.ResponsesAdapter(program)


def body(question: str, **more: Any) -> dict[str, Any]:
    return {"input": [{"role": "user", "content": question}], **more}


def events_of(response: httpx.Response) -> list[dict[str, Any]]:
    data = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert data[-1] == "[DONE]"
    return [json.loads(line) for line in data[:-1]]


LOOKED_UP = (call("look_up", "I look it up", word="tide"), finish(sure=True, answer="The tide turns."))


def test_the_openai_client_gets_the_response():
    with oneturn.running_server(adapter(*LOOKED_UP)) as url:
        client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
        response = client.responses.create(model="agent", input=[{"role": "user", "content": "tide?"}])
    assert response.output_text == "The tide turns."
    types = [item.type for item in response.output]
    assert types == ["reasoning", "function_call", "function_call_output", "message"]
    assert response.model_extra == {"custom_outputs": {"sure": True}}


def test_the_openai_client_gets_the_stream():
    with oneturn.running_server(adapter(*LOOKED_UP)) as url:
        client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
        items: Any = [{"role": "user", "content": "tide?"}]
        events = [event.to_dict() for event in client.responses.create(model="agent", input=items, stream=True)]
    deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    assert len(deltas) > 2
    assert "".join(str(delta) for delta in deltas) == "The tide turns."
    assert events[-1]["type"] == "response.completed"


@pytest.mark.parametrize("path", ["/invocations", "/responses"])
def test_plain_http_streams(path: str):
    with oneturn.running_server(adapter(*LOOKED_UP)) as url:
        response = httpx.post(url + path, json=body("tide?", stream=True))
    assert response.headers["content-type"].startswith("text/event-stream")
    events = events_of(response)
    assert events[-1]["type"] == "response.completed"
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


def test_health_of_a_started_server():
    with oneturn.running_server(adapter()) as url:
        assert httpx.get(f"{url}/health").json() == {"status": "healthy"}


def test_concurrent_streams_are_isolated():
    def reply(request: ScriptedRequest) -> dict[str, Any]:
        marker = re.search(r"marker-\d+", request.text)
        assert marker is not None
        used = "meaning of" in request.text
        return finish(answer=f"It is {marker[0]}.", sure=True) if used else call("look_up", word=marker[0])

    def ask(number: int) -> Reply:
        together.wait()
        return oneturn.query(url, f"marker-{number}")

    together = threading.Barrier(16, timeout=60)
    with oneturn.running_server(adapter(*[reply] * 32)) as url, ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(ask, range(16)))
    for number, answer in enumerate(replies):
        assert answer.text == f"It is marker-{number}."
        assert [(use.arguments, use.output) for use in answer.tool_calls] == [
            (json.dumps({"word": f"marker-{number}"}), f"meaning of marker-{number}")
        ]


def test_two_servers_in_one_process_use_their_own_agents():
    first, second = (adapter(finish(answer=answer, sure=True)) for answer in ("one", "two"))
    with oneturn.running_server(first) as url_1, oneturn.running_server(second) as url_2:
        assert oneturn.query(url_2, "?").text == "two"
        assert oneturn.query(url_1, "?").text == "one"


class Failing:
    """A program that fails after the start of an answer."""

    signature = Ask
    answer_field = "answer"
    citing_fields = ()

    def steps(self, **inputs: Any) -> Iterator[Step]:
        yield AnswerDelta("It is ")
        raise RuntimeError(SECRET)


def test_a_failure_during_a_stream_is_its_last_event():
    with oneturn.running_server(oneturn.ResponsesAdapter(Failing())) as url:
        response = httpx.post(f"{url}/responses", json=body("?", stream=True))
    events = events_of(response)
    assert [event["type"] for event in events[-2:]] == ["error", "response.failed"]
    assert events[-2]["code"] == "server_error"
    assert "response.completed" not in [event["type"] for event in events]
    assert SECRET not in json.dumps(events)


def test_a_failure_without_a_stream_is_an_http_error():
    with oneturn.running_server(oneturn.ResponsesAdapter(Failing())) as url:
        response = httpx.post(f"{url}/responses", json=body("?"))
    assert response.status_code == 500
    message = "The agent failed (RuntimeError); see its trace for details."
    expected = {"message": message, "type": "server_error", "param": "", "code": "server_error"}
    assert response.json() == {"error": expected}


def test_the_log_shows_a_client_s_escape_sequences(caplog: pytest.LogCaptureFixture):
    with oneturn.running_server(oneturn.ResponsesAdapter(Failing())) as url:
        httpx.post(f"{url}/responses", json={"input": [{"role": "\x1b[2J", "content": "?"}]})
    assert "\\u001b[2J" in caplog.text
    assert "\x1b" not in caplog.text


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("kind", ["unknown field", "no question"])
def test_an_invalid_request_gets_an_error_status_before_the_stream(stream: bool, kind: str):
    invalid = {"unknown field": body("?", custom_inputs={"hue": 1}), "no question": {"input": []}}[kind]
    with oneturn.running_server(adapter()) as url:
        response = httpx.post(f"{url}/responses", json={**invalid, "stream": stream})
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/json"
    assert response.json()["error"]["code"] == "invalid_request"


def test_a_rate_limited_language_model_sets_retry_after():
    with oneturn.running_server(adapter(RateLimitError("slow down", retry_after=2.5))) as url:
        response = httpx.post(f"{url}/responses", json=body("?"))
    assert response.status_code == 429
    assert response.headers["retry-after"] == "3"
    assert response.json()["error"]["code"] == "rate_limit_exceeded"


class Foreign(ResponsesAgent):
    """A third-party agent that raises."""

    def predict(self, request: Any) -> Any:
        raise RuntimeError(SECRET)

    def predict_stream(self, request: Any) -> Any:
        raise RuntimeError(SECRET)
        yield


@pytest.mark.parametrize("stream", [False, True])
def test_the_text_of_an_exception_is_not_sent(stream: bool):
    with oneturn.running_server(Foreign()) as url:
        response = httpx.post(f"{url}/responses", json=body("?", stream=stream))
    assert "The agent failed (RuntimeError)" in response.text
    assert SECRET not in response.text


class Counting(ResponsesAgent):
    """A third-party agent that counts its runs."""

    def __init__(self) -> None:
        self.runs = 0

    def predict(self, request: Any) -> Any:
        self.runs += 1
        return ResponsesAgentResponse(output=[])

    def predict_stream(self, request: Any) -> Any:
        self.runs += 1
        yield {"type": "response.output_item.done", "item": {}}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("reason", ["client_gone", "shutting_down"])
def test_a_request_that_was_stopped_while_it_waited_runs_no_agent(reason: str, stream: bool):
    agent = Counting()
    no_place = RequestLimit(0, 1)
    run = RequestRun(ServedAgent(agent), body("?", stream=stream), "mlflow", {"x-request-id": "r"}, no_place)
    run.context.cancel(reason)
    with run.context.active(), pytest.raises(AgentError, match=f"stopped before it began: {reason}") as stopped:
        (run._stream if stream else run._respond)()
    assert stopped.value.status == 503
    assert agent.runs == 0


def test_a_thread_that_can_t_be_started_takes_no_place(monkeypatch: pytest.MonkeyPatch):
    def no_thread(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def start() -> None:
        run.start()

    limit = RequestLimit(1, 0)
    run = RequestRun(ServedAgent(Counting()), body("?"), "mlflow", {"x-request-id": "r"}, limit)
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    for _ in range(3):
        with pytest.raises(AgentError, match="can't start new thread") as refused:
            asyncio.new_event_loop().run_until_complete(start())
        assert (refused.value.code, refused.value.status) == ("overloaded", 503)


REFUSED = {
    "no input": ({}, "input: Field required.", "input"),
    "half an item": ({"input": [{"role": "user"}]}, "input.0.content: Field required.", "input"),
    "a list": ([1], "The request's body must be a JSON object.", ""),
    "no question": (
        {"input": [{"role": "assistant", "content": "hi"}]},
        'The request has no user message; send input=[{"role": "user", "content": "…"}].',
        "input",
    ),
    "an unknown input": (
        body("?", custom_inputs={"colour": "red"}),
        "custom_inputs has an unknown field 'colour'; known: question, tone.",
        "custom_inputs",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_invalid_request_is_rejected_with_the_reason(case: str):
    sent, message, param = REFUSED[case]
    with oneturn.running_server(adapter()) as url:
        response = httpx.post(f"{url}/responses", json=sent)
    assert response.status_code == 400
    expected = {"message": message, "type": "invalid_request", "param": param, "code": "invalid_request"}
    assert response.json() == {"error": expected}


def test_a_body_that_is_not_json_is_rejected():
    with oneturn.running_server(adapter()) as url:
        response = httpx.post(f"{url}/responses", content=b"{", headers={"content-type": "application/json"})
    assert (response.status_code, response.json()["error"]["message"]) == (400, "The request's body isn't JSON.")


def test_an_unknown_path_is_not_found():
    with oneturn.running_server(adapter()) as url:
        response = httpx.post(f"{url}/chat", json={})
    assert (response.status_code, response.json()["error"]["message"]) == (404, "Not Found: POST /chat")


class Endless:
    """A program that runs until it is closed."""

    signature = Ask
    answer_field = "answer"
    citing_fields = ()

    def __init__(self) -> None:
        self.closed = threading.Event()

    def steps(self, **inputs: Any) -> Iterator[Step]:
        try:
            while True:
                yield AnswerDelta("more ")
                self.closed.wait(0.01)
        finally:
            self.closed.set()


def test_a_client_disconnect_ends_the_run():
    program = Endless()
    with oneturn.running_server(oneturn.ResponsesAdapter(program)) as url:
        with httpx.stream("POST", f"{url}/responses", json=body("?", stream=True)) as response:
            lines = response.iter_lines()  # the client disconnects when it is deleted
            next(line for line in lines if "output_text.delta" in line)
            assert not program.closed.is_set()
        assert program.closed.wait(30)


class Waiting:
    """A tool that runs until its run is cancelled."""

    def __init__(self) -> None:
        self.stopped = threading.Event()

    def work(self) -> str:
        """Work."""
        oneturn.progress("at work")
        while not oneturn.cancelled():
            self.stopped.wait(0.005)
        self.stopped.set()
        return "in vain"


def waiting(tool: Waiting) -> tuple[oneturn.ResponsesAdapter, ScriptedLM]:
    lm = ScriptedLM(call("work"))
    program = oneturn.ReAct(Ask, tools=[tool.work])
    program.set_lm(lm)
    return oneturn.ResponsesAdapter(program), lm


def at_work(response: httpx.Response) -> Iterator[str]:
    """The lines of a stream after the tool has started."""
    lines = response.iter_lines()
    assert next(line for line in lines if "at work" in line)
    return lines


def test_a_client_disconnect_stops_the_tool_and_further_lm_calls():
    tool = Waiting()
    agent, lm = waiting(tool)
    with oneturn.running_server(agent) as url:
        with httpx.stream("POST", f"{url}/responses", json=body("?", stream=True)) as response:
            at_work(response)
        assert tool.stopped.wait(30)
    assert len(lm.requests) == 1


def test_a_stopped_server_ends_its_streams_with_a_terminal_event(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("oneturn.serving.protocol.GRACE_SECONDS", 0)
    tool = Waiting()
    agent, lm = waiting(tool)
    with ThreadPoolExecutor(1) as pool, contextlib.ExitStack() as stack:
        with oneturn.running_server(agent) as url:
            sent = httpx.stream("POST", f"{url}/responses", json=body("?", stream=True), timeout=30)
            rest = at_work(stack.enter_context(sent))
            ending = pool.submit(list, rest)
        data = [line.removeprefix("data: ") for line in ending.result() if line]
    last = json.loads(data[-2])
    assert data[-1] == "[DONE]"
    assert last["type"] == "response.incomplete"
    assert last["response"]["incomplete_details"]["reason"] == "shutting_down"
    assert len(lm.requests) == 1


@pytest.mark.usefixtures("traced")
def test_a_request_is_one_trace_that_contains_the_agent_s_spans():
    headers = {"x-mlflow-return-trace-id": "true"}
    with oneturn.running_server(adapter(*LOOKED_UP * 2)) as url:
        response = httpx.post(f"{url}/responses", json=body("tide?"), headers=headers)
        stream = httpx.post(f"{url}/responses", json=body("tide?", stream=True), headers=headers)
    ids = response.json()["metadata"]["trace_id"], events_of(stream)[-1]["trace_id"]
    below = ("scripted/lm", "look_up", "scripted/lm")
    for id, root, agent in zip(ids, ("request", "request_stream"), ("predict", "predict_stream"), strict=True):
        trace = mlflow.get_trace(id)
        assert trace is not None
        spans = sorted(trace.data.spans, key=lambda span: span.start_time_ns)
        expected = [root, f"{root}/{agent}", *(f"{root}/{agent}/{name}" for name in below)]
        assert [_path(span, spans) for span in spans] == expected


def _path(span: Any, spans: list[Any]) -> str:
    parent = next((other for other in spans if other.span_id == span.parent_id), None)
    return span.name if parent is None else f"{_path(parent, spans)}/{span.name}"


def test_a_port_in_use_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OneTurnError) as caught, oneturn.running_server(adapter(), port=port):
            pass
    expected = f"Port {port} on 127.0.0.1 is in use by another process; choose another port, or 0 for any free port."
    assert str(caught.value) == expected


LOGGED = """
import mlflow, oneturn
from oneturn.testing import ScriptedLM, finish


def program():
    program = oneturn.ReAct("question -> answer", tools=[])
    program.set_lm(ScriptedLM(*[finish(answer="From the logged model.")] * 9))
    return program


mlflow.models.set_model(oneturn.ResponsesAdapter(program))
"""


def test_a_logged_model_can_be_served(tmp_path: Path):
    (tmp_path / "agent.py").write_text(LOGGED)
    model = str(tmp_path / "model")
    mlflow.pyfunc.save_model(model, python_model=str(tmp_path / "agent.py"), pip_requirements=["oneturn"])
    with oneturn.running_server(load_logged(model)) as url:
        assert oneturn.query(url, "?").text == "From the logged model."


def test_the_settings_of_a_logged_model_are_those_of_its_configuration(tmp_path: Path):
    (tmp_path / "agent.py").write_text(LOGGED)
    source, settings = str(tmp_path / "agent.py"), {"page": False, "api_key_env": "AGENT_KEY"}
    config = AgentConfig(lm=LMConfig(model="openai/x"), serve=ServeConfig(**settings)).to_model_config()
    for name, logged, expected in (
        ("mine", config, ServeConfig(**settings)),
        ("without", None, ServeConfig()),
        ("another", {"serve": "always"}, ServeConfig()),
    ):
        model = str(tmp_path / name)
        mlflow.pyfunc.save_model(model, python_model=source, model_config=logged, pip_requirements=["oneturn"])
        assert logged_settings(model) == expected
        assert AgentSource("agent.py", model).load()[1] == expected
    with pytest.raises(ConfigError, match="AGENT_KEY"):
        oneturn.serve(str(tmp_path / "mine"), port=0)


SERVE = """
import dspy, oneturn
from oneturn.testing import ScriptedLM, finish

program = oneturn.ReAct("question -> answer", tools=[])
program.set_lm(ScriptedLM(finish(answer="yes")))
oneturn.serve(oneturn.ResponsesAdapter(program), port=0)
"""


def test_serve_prints_its_url_and_stops_when_interrupted(tmp_path: Path):
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SERVE]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            line = next(line for line in process.stderr if line.startswith("Serving at "))
            url = line.split()[2]
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url)
            assert httpx.get(f"{url}/health").status_code == 200
            process.send_signal(signal.SIGINT)
            rest = process.stderr.read()
        finally:
            process.kill()
    assert process.returncode == 0, rest
    assert "Traceback" not in rest


def test_a_missing_model_is_an_error(tmp_path: Path):
    with pytest.raises(ProgramError, match=r"The model '.*nothing' can't be loaded .*Log it with: oneturn log"):
        oneturn.serve(str(tmp_path / "nothing"), port=0)


class Router(dspy.Module):
    """An agent that calls an endpoint, which rejects the call."""

    def forward(self, question: str) -> dspy.Prediction:
        raise EndpointError("the token glpat-a1b2c3d4e5f6g7h8i9j0 may not read /opt/models/billing", "no_access", 403)


@pytest.mark.parametrize("stream", [False, True])
def test_an_upstream_error_is_redacted(stream: bool):
    agent = oneturn.ResponsesAdapter(Router(), signature="question -> answer")
    body = {"input": [{"role": "user", "content": "Hello"}], "stream": stream}
    with oneturn.running_server(agent) as url:
        answer = httpx.post(f"{url}/responses", json=body)
    assert answer.status_code == (200 if stream else 424)
    assert "upstream_error" in answer.text
    assert "glpat-" not in answer.text
    assert "/opt/models" not in answer.text
