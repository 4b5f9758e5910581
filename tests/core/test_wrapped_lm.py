"""An LM whose engine is wrapped for a run or a compile is copied, pickled and saved like the LM itself."""

from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace
from typing import Any

import dspy
import pytest
from dspy.lm15 import Request, Response

from oneturn import ReAct
from oneturn.core._dspy import engine_call, with_checked_forward, with_engine
from oneturn.errors import RunError
from tests.programs.react.chat_stub import ChatStub, chat_stub


class Wrapping:
    """An engine that passes each request to the engine of its LM, and counts them."""

    def __init__(self, lm: dspy.LM):
        self.lm = lm
        self.requests: list[Request] = []

    def complete(self, request: Request) -> Response:
        self.requests.append(request)
        call = engine_call(self.lm, request)
        return call.engine.complete(call.request)


def wrapped(stub: ChatStub, **options: Any) -> tuple[dspy.LM, Wrapping]:
    lm = stub.lm(timeout=20, **options)
    engine = Wrapping(lm)
    return with_engine(lm, engine), engine


def test_an_optimizer_copies_it_with_other_settings():
    with chat_stub("one", "two") as stub:
        lm, engine = wrapped(stub)
        copied = lm.copy(rollout_id=1, temperature=1.0)
        assert copied("q") == ["one"]
        assert copied.copy(temperature=0.5)("q") == ["two"]
    assert len(engine.requests) == 2
    assert [request["temperature"] for request in stub.requests] == [1.0, 0.5]
    assert "temperature" not in lm.kwargs or lm.kwargs["temperature"] is None


def test_a_copy_with_another_connection_is_one_of_the_lm_itself():
    with chat_stub("one") as stub, chat_stub("other") as other:
        lm, engine = wrapped(stub)
        assert lm.copy(api_base=f"http://127.0.0.1:{other.port}/v1")("q") == ["other"]
    assert engine.requests == []


def test_a_deep_copy_shares_the_engine():
    with chat_stub("one") as stub:
        lm, engine = wrapped(stub)
        copied = copy.deepcopy(lm)
        assert copied("q") == ["one"]
    assert len(engine.requests) == 1
    assert copied.kwargs is not lm.kwargs


def test_it_is_pickled_and_saved_as_the_lm_itself():
    with chat_stub("one") as stub:
        lm, engine = wrapped(stub)
        loaded = pickle.loads(pickle.dumps(lm.copy(temperature=0.5)))
        assert type(loaded) is dspy.LM
        assert loaded("q") == ["one"]
        state = lm.dump_state()
    assert (loaded.kwargs["temperature"], loaded.kwargs["timeout"], engine.requests) == (0.5, 20, [])
    assert state["_dspy_lm_class"] == "dspy.clients.lm.LM"
    assert "engine" not in state


def test_a_call_may_have_its_own_connection():
    with chat_stub("one") as stub, chat_stub("other") as other:
        lm, engine = wrapped(stub)
        assert lm("q", timeout=3) == ["one"]
        assert lm("q", api_base=f"http://127.0.0.1:{other.port}/v1") == ["other"]
    assert len(engine.requests) == 2


class Own(dspy.BaseLM):
    """An LM class whose replies hold only what DSPy itself reads."""

    def __init__(self, reason: str, content: str = "", **message: Any):
        super().__init__(model="own/lm", cache=False)
        message = SimpleNamespace(content=content, tool_calls=None, **message)
        choice = SimpleNamespace(message=message, finish_reason=reason)
        self.reply = SimpleNamespace(choices=[choice], usage={}, model="own/lm")

    def forward(self, prompt: Any = None, messages: Any = None, **kwargs: Any) -> Any:
        return self.reply


CUT = '{"thought": "x", "tool_call": {"name": "finish", "args": {"answer": "It is a lo'


@pytest.mark.parametrize(
    ("lm", "code"),
    [
        (Own("length", CUT), "max_output_tokens"),
        (Own("MAX_TOKENS", CUT), "max_output_tokens"),
        (Own("content_filter"), "content_filter"),
        (Own("stop", refusal="I can't."), "refusal"),
    ],
)
def test_the_ending_of_a_reply_is_seen_that_lm15_cannot_read(lm: Own, code: str):
    program = ReAct("question -> answer", tools=[])
    program.set_lm(lm)
    with pytest.raises(RunError) as ended:
        program(question="q")
    assert ended.value.code == code


def test_a_reply_without_choices_is_left_to_dspy():
    lm = Own("stop")
    lm.reply = SimpleNamespace()
    checked: list[Response] = []
    view = with_checked_forward(lm, checked.append)
    assert view.forward() is lm.reply
    assert checked == []
