"""A cancelled run ends its LM call: the connection is closed, and the thread with it."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import Any, get_args

import dspy
import openai
import pytest
from dspy.lm15 import Message, Request, Response, TextPart, Usage

import oneturn
from oneturn.core import background
from oneturn.core.background import ConsumerGone, run_in_thread, stream_in_thread
from oneturn.core.run_context import RunContext
from oneturn.core.steps import ToolResult
from oneturn.errors import AgentError, RunCancelled
from oneturn.lm.databricks import EndpointEngine
from oneturn.lm.streaming import tapped
from oneturn.serving.interruption import interrupt_httpx
from oneturn.testing import ScriptedLM, call, finish
from tests.lm.hanging_server import HangingServer, Stop, hanging_server

STOPS = [stop for stop in get_args(Stop) if stop != "never"]


class InThread:
    """A call in a thread of its own, within a run that can be cancelled."""

    def __init__(self, call: Callable[[], Any]):
        self.run = RunContext()
        self.error: BaseException | None = None
        self._call = call
        with self.run.active():
            context = contextvars.copy_context()
        self.thread = threading.Thread(target=context.run, args=(self._work,), daemon=True)
        self.thread.start()

    def _work(self) -> None:
        try:
            self._call()
        except BaseException as error:
            self.error = error

    def cancel(self) -> None:
        """Cancel the run, and wait for the thread to end."""
        self.run.cancel("client_gone")
        self.thread.join(30)
        assert not self.thread.is_alive()


def arrived(server: HangingServer) -> bool:
    return server.open == 1 or (server.stop == "for a retry" and server.requests == 1 and server.open == 0)


def plain(lm: dspy.LM) -> Callable[[], Any]:
    return lambda: lm("Hello")


def streamed(lm: dspy.LM) -> Callable[[], Any]:
    return lambda: tapped(lm, lambda text: None)("Hello")


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("way", [plain, streamed])
def test_a_cancelled_run_closes_the_connection_of_its_lm_call(stop: Stop, way: Callable[[dspy.LM], Any]):
    with hanging_server(stop) as server:
        lm = server.lm()
        asked = InThread(way(lm))
        assert server.wait(arrived)
        asked.cancel()
        assert isinstance(asked.error, ConsumerGone)
        assert server.wait(lambda server: server.open == 0)
        assert server.requests == 1
        server.stop = "never"
        assert "It is done." in lm("Hello again")[0]


@pytest.mark.parametrize("model", ["anthropic/claude-opus-4-5", "gemini/gemini-2.5-pro", "groq/llama-3"])
def test_it_holds_for_every_provider(model: str):
    with hanging_server("before the head") as server:
        asked = InThread(plain(server.lm(model)))
        assert server.wait(arrived)
        asked.cancel()
        assert server.wait(lambda server: server.open == 0)


def test_it_holds_for_an_endpoint_of_a_workspace(monkeypatch: pytest.MonkeyPatch):
    with hanging_server("before the head") as server:
        monkeypatch.setenv("DATABRICKS_HOST", f"http://127.0.0.1:{server.port}")
        monkeypatch.setenv("DATABRICKS_TOKEN", "t")
        lm = dspy.LM("databricks/x", engine=EndpointEngine("x"), cache=False)
        asked = InThread(plain(lm))
        assert server.wait(arrived)
        asked.cancel()
        assert server.wait(lambda server: server.open == 0)


@pytest.mark.parametrize("stop", ["before the head", "in the reply"])
@pytest.mark.parametrize("way", [plain, streamed])
def test_it_holds_for_litellm(stop: Stop, way: Callable[[dspy.LM], Any]):
    interrupt_httpx()
    with hanging_server(stop) as server:
        asked = InThread(way(server.lm(engine="litellm")))
        assert server.wait(arrived)
        asked.cancel()
        assert isinstance(asked.error, ConsumerGone)
        assert server.wait(lambda server: server.open == 0)
        assert server.requests == 1


def test_it_holds_for_an_openai_client_of_the_users_own():
    interrupt_httpx()
    with hanging_server("never") as server:
        client = openai.OpenAI(api_key="k", base_url=f"http://127.0.0.1:{server.port}/v1")

        def ask() -> Any:
            return client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hello"}])

        assert ask().choices[0].message.content
        server.stop = "before the head"
        asked = InThread(ask)  # on the same connection
        assert server.wait(arrived)
        asked.cancel()
        assert server.wait(lambda server: server.open == 0)
        server.stop = "never"
        assert ask().choices[0].message.content


@pytest.mark.parametrize("streaming", [True, False])
def test_the_end_of_a_generator_closes_the_connection(streaming: bool):
    with hanging_server("before the first token") as server:
        lm = server.lm()
        events = stream_in_thread(lambda emit: (emit("started"), (streamed if streaming else plain)(lm)()))
        assert next(events) == "started"
        assert server.wait(arrived)
        events.close()
        assert server.wait(lambda server: server.open == 0)


@pytest.mark.parametrize("way", ["steps", "forward"])
def test_a_cancelled_run_of_a_program_is_cancelled_at_once(way: str):
    with hanging_server("before the head") as server:
        program = oneturn.ReAct("question -> answer", tools=[])
        program.set_lm(server.lm())
        asked = InThread(
            (lambda: list(program.steps(question="q"))) if way == "steps" else (lambda: program(question="q"))
        )
        assert server.wait(arrived)
        asked.cancel()
        assert isinstance(asked.error, RunCancelled)
        assert server.wait(lambda server: server.open == 0)


def test_a_tools_own_timeout_closes_the_connection_of_its_lm():
    with hanging_server("before the head") as server:
        lm = server.lm()

        @oneturn.tool(timeout=0.2)
        def ask() -> str:
            """Ask another LM."""
            return lm("Hello")[0]

        program = oneturn.ReAct("question -> answer", tools=[ask])
        program.set_lm(ScriptedLM(call("ask"), finish(answer="Without it.")))
        results = [step for step in program.steps(question="q") if isinstance(step, ToolResult)]
        assert [result.output for result in results] == ["Error: the tool exceeded its timeout of 0.2 s"]
        assert server.wait(lambda server: server.requests == 1 and server.open == 0)


class Uninterruptible:
    """An engine that nothing can interrupt: its calls wait for ``release``."""

    def __init__(self) -> None:
        self.called, self.release = threading.Event(), threading.Event()

    def complete(self, request: Request) -> Response:
        self.called.set()
        self.release.wait(60)
        return Response(None, request.model, Message.assistant(TextPart("late")), "stop", Usage())


def test_calls_that_cannot_be_interrupted_are_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(background, "MAX_ABANDONED", 3)
    engine = Uninterruptible()
    lm = dspy.LM("own/lm", engine=engine, cache=False)

    def ask(emit: Callable[[Any], None]) -> Any:
        threads.append(threading.current_thread())
        emit("started")
        return lm("Hello")

    threads: list[threading.Thread] = []
    for _ in range(3):
        events = stream_in_thread(ask)
        assert next(events) == "started"
        events.close()
    with pytest.raises(AgentError, match="3 calls of an LM or a tool") as refused:
        next(stream_in_thread(ask))
    assert (refused.value.code, refused.value.status, refused.value.retry_after) == ("overloaded", 503, 5.0)
    engine.release.set()
    for thread in threads:
        thread.join(30)
    assert run_in_thread(lambda emit: lm("Hello"), print) == ["late"]
