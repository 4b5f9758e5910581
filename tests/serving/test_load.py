"""Clients that leave, and more requests than a server answers at a time."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import dspy
import httpx
import pytest

import oneturn
from oneturn.config import ServeConfig
from oneturn.core import background
from oneturn.serving import protocol, request_limit
from oneturn.serving.request_limit import RequestLimit
from oneturn.testing import ScriptedLM, call, finish
from tests.lm.hanging_server import HangingServer, Stop, hanging_server
from tests.lm.test_interruption import Uninterruptible

CLIENTS = 200
SETTINGS = ServeConfig(max_requests=64, max_waiting=CLIENTS - 64)
QUESTION = {"input": [{"role": "user", "content": "?"}]}
Place = Literal["before the head", "before the first token", "in the reply", "in a tool"]


def asking(lm: HangingServer) -> oneturn.ResponsesAdapter:
    """An agent that asks this LM."""
    program = oneturn.ReAct("question -> answer", tools=[], tool_calling="schema")
    program.set_lm(lm.lm())
    return oneturn.ResponsesAdapter(program)


def calling(lm: HangingServer) -> oneturn.ResponsesAdapter:
    """An agent with a tool that asks this server and hangs."""

    def look_up(word: str) -> str:
        """Look a word up."""
        body = {"model": "m", "messages": []}
        return f"status {httpx.post(f'http://127.0.0.1:{lm.port}', json=body, timeout=60).status_code}"

    def reply(request: Any) -> Any:
        return finish(answer="It is done.") if "status 200" in request.text else call("look_up", word="w")

    program = oneturn.ReAct("question -> answer", tools=[look_up])
    program.set_lm(ScriptedLM(*[reply] * 2 * (CLIENTS + 2)))
    return oneturn.ResponsesAdapter(program)


class Admitted:
    """Counts the requests that a server has admitted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.count = 0
        self._changed = threading.Condition()
        admit = RequestLimit.admit

        def counted(limit: RequestLimit) -> None:
            admit(limit)
            with self._changed:
                self.count += 1
                self._changed.notify_all()

        monkeypatch.setattr(RequestLimit, "admit", counted)

    def wait(self, count: int) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self.count >= count, 60)


def send(url: str, **fields: Any) -> socket.socket:
    """Send a request and don't read the response."""
    parts = httpx.URL(url)
    body = json.dumps({**QUESTION, **fields}).encode()
    head = f"POST /responses HTTP/1.1\r\nHost: {parts.host}\r\nContent-Type: application/json\r\n"
    connection = socket.create_connection((parts.host, parts.port), timeout=60)
    connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return connection


def read_until(connection: socket.socket, text: bytes) -> None:
    """Read a response up to a text that it contains."""
    data = b""
    while text not in data:
        data += (piece := connection.recv(65536))
        assert piece, data


def run_threads() -> list[threading.Thread]:
    names = ("oneturn-request", "oneturn-run", "oneturn-tool")
    return [thread for thread in threading.enumerate() if thread.name.startswith(names)]


def join_runs() -> None:
    """Wait until no thread of a run is left."""
    while threads := run_threads():
        threads[0].join(30)
        assert not threads[0].is_alive()


def sockets() -> int:
    """The number of open sockets of this process."""
    links = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            links.append(os.readlink(entry))
        except FileNotFoundError:  # the folder's own
            continue
    return sum(link.startswith("socket:") for link in links)


def becomes(condition: Callable[[], bool], seconds: float = 30) -> bool:
    """Wait until a condition holds that nothing signals: the system closes the other ends of connections."""
    end, never = time.monotonic() + seconds, threading.Event()
    while not condition() and time.monotonic() < end:
        never.wait(0.01)
    return condition()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts sockets in /proc")
@pytest.mark.parametrize("place", get_args(Place))
def test_200_clients_that_leave_free_their_threads_and_connections(place: Place, monkeypatch: pytest.MonkeyPatch):
    admitted = Admitted(monkeypatch)
    with hanging_server("never") as lm:
        agent = calling(lm) if place == "in a tool" else asking(lm)
        stop: Stop = "before the head" if place == "in a tool" else place
        with oneturn.running_server(agent, settings=SETTINGS) as url, httpx.Client(base_url=url, timeout=60) as client:
            assert client.post("/responses", json=QUESTION).status_code == 200
            assert lm.wait(lambda lm: lm.open == 0)
            open_before = sockets()
            lm.stop = stop
            clients = [send(url, stream=number % 2 == 0) for number in range(CLIENTS)]
            assert admitted.wait(1 + CLIENTS)
            assert lm.wait(lambda lm: lm.open == 64)
            for connection in clients:
                connection.close()
            join_runs()
            assert lm.wait(lambda lm: lm.open == 0 and lm.connections <= 1)
            lm.stop = "never"
            assert "It is done." in client.post("/responses", json=QUESTION).text
            assert lm.wait(lambda lm: lm.open == 0)
            assert becomes(lambda: sockets() <= open_before)
    join_runs()


def test_a_client_that_leaves_while_the_lm_waits_for_a_retry_ends_the_wait():
    with hanging_server("for a retry") as lm, oneturn.running_server(asking(lm)) as url:
        connection = send(url)
        assert lm.wait(lambda lm: lm.requests == 1 and lm.open == 0)
        connection.close()
        join_runs()
        assert lm.requests == 1


def lines(response: httpx.Response) -> Iterator[str]:
    return (line for line in response.iter_lines() if line)


@pytest.fixture
def hanging() -> Iterator[HangingServer]:
    with hanging_server("before the head") as lm:
        yield lm


def test_a_request_beyond_the_limit_waits_with_keep_alive(hanging: HangingServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(request_limit, "KEEP_ALIVE", 0.01)
    settings = ServeConfig(max_requests=1, max_waiting=1)
    with oneturn.running_server(asking(hanging), settings=settings) as url:
        first = send(url)
        assert hanging.wait(lambda lm: lm.open == 1)
        body = {**QUESTION, "stream": True}
        with httpx.stream("POST", f"{url}/v1/responses", json=body, timeout=60) as second:
            assert second.status_code == 200
            received = lines(second)
            assert [next(received) for _ in range(3)] == [": waiting"] * 3
            hanging.stop = "never"
            first.close()
            events = [line for line in received if line.startswith("data:")]
    assert json.loads(events[0][5:])["type"] == "response.created"
    assert "It is done." in events[-2]
    assert events[-1] == "data: [DONE]"


def test_requests_run_in_their_order(monkeypatch: pytest.MonkeyPatch):
    admitted = Admitted(monkeypatch)
    program = Recording()
    settings = ServeConfig(max_requests=1, max_waiting=9)
    with oneturn.running_server(
        oneturn.ResponsesAdapter(program, signature="question -> answer"), settings=settings
    ) as url:
        connections = []
        for number in range(6):
            connections.append(send(url, input=f"question {number}", stream=True))
            assert admitted.wait(number + 1)
            if number:  # it waits, in the queue
                read_until(connections[-1], b": waiting")
        program.go_on.set()
        for connection in connections:
            read_until(connection, b"[DONE]")
            connection.close()
    assert program.questions == [f"question {number}" for number in range(6)]


class Recording(dspy.Module):
    """Records its questions; waits in the first."""

    def __init__(self) -> None:
        super().__init__()
        self.questions: list[str] = []
        self.go_on = threading.Event()

    def forward(self, question: str) -> dspy.Prediction:
        self.questions.append(question)
        assert self.go_on.wait(60)
        return dspy.Prediction(answer="Yes.")


def test_beyond_the_queue_a_request_is_refused_at_once(hanging: HangingServer, monkeypatch: pytest.MonkeyPatch):
    admitted = Admitted(monkeypatch)
    with oneturn.running_server(asking(hanging), settings=ServeConfig(max_requests=1, max_waiting=1)) as url:
        connections = [send(url, stream=stream) for stream in (True, False)]
        assert admitted.wait(2)
        for stream in (True, False):
            response = httpx.post(f"{url}/v1/responses", json={**QUESTION, "stream": stream})
            assert response.status_code == 503
            assert response.headers["retry-after"] == "5"
            assert response.json()["error"] == {
                "type": "server_error",
                "code": "overloaded",
                "message": "The server is busy with 2 requests; retry later.",
                "param": "",
            }
        assert httpx.get(f"{url}/health").status_code == 200
        for connection in connections:
            connection.close()
        join_runs()
        hanging.stop = "never"
        assert httpx.post(f"{url}/responses", json=QUESTION).status_code == 200


@pytest.mark.parametrize("stream", [True, False])
def test_an_invalid_request_is_refused_while_others_wait(
    stream: bool, hanging: HangingServer, monkeypatch: pytest.MonkeyPatch
):
    admitted = Admitted(monkeypatch)
    with oneturn.running_server(asking(hanging), settings=ServeConfig(max_requests=1, max_waiting=2)) as url:
        connections = [send(url), send(url)]
        assert admitted.wait(2)
        invalid = {**QUESTION, "stream": stream, "custom_inputs": {"colour": "red"}}
        assert httpx.post(f"{url}/responses", json=invalid).status_code == 400
        for connection in connections:
            connection.close()


def test_a_stopped_server_ends_waiting_requests(hanging: HangingServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(protocol, "GRACE_SECONDS", 0)
    settings = ServeConfig(max_requests=1, max_waiting=1)
    with oneturn.running_server(asking(hanging), settings=settings) as url:
        first = send(url, stream=True)
        assert hanging.wait(lambda lm: lm.open == 1)
        second = send(url, stream=True)
        read_until(second, b": waiting")
    for connection in (first, second):
        data = b""
        while piece := connection.recv(65536):
            data += piece
        connection.close()
        assert b"response.incomplete" in data
        assert b"shutting_down" in data
    assert hanging.requests == 1


def test_requests_are_refused_while_too_many_calls_go_on_without_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(background, "MAX_ABANDONED", 1)
    engine = Uninterruptible()
    program = dspy.Predict("question -> answer")
    program.set_lm(dspy.LM("own/lm", engine=engine, cache=False))
    with oneturn.running_server(oneturn.ResponsesAdapter(program, signature="question -> answer")) as url:
        connection = send(url)
        assert engine.called.wait(30)
        [running] = [thread for thread in run_threads() if thread.name == "oneturn-request"]
        connection.close()
        running.join(30)
        response = httpx.post(f"{url}/responses", json={**QUESTION, "stream": True})
        assert (response.status_code, response.headers["retry-after"]) == (503, "5")
        assert response.json()["error"]["code"] == "overloaded"
        engine.release.set()
        join_runs()
        assert httpx.post(f"{url}/responses", json=QUESTION).status_code != 503
