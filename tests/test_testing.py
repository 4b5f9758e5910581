"""``oneturn.testing``: too many or too few calls of a ``ScriptedLM`` fail the test."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dspy
import pytest
from dspy.lm15 import ContextLengthError, RateLimitError

import oneturn
from oneturn.testing import ScriptedLM, ScriptError, call, finish


def program() -> oneturn.ReAct:
    return oneturn.ReAct("question -> answer", tools=[])


def test_replies_come_in_order_and_requests_are_recorded():
    with ScriptedLM("one", "two") as lm:
        assert [lm("first")[0], lm("second")[0]] == ["one", "two"]
    assert [request.text for request in lm.requests] == ["user: first", "user: second"]


def test_a_call_beyond_the_script_fails():
    lm = ScriptedLM("one")
    lm("first")
    with pytest.raises(ScriptError) as caught:
        lm("second")
    message = "The LM was called 2 times; its script has 1 replies. The last message was: 'second'"
    assert str(caught.value) == message


def test_unused_replies_fail():
    with pytest.raises(ScriptError) as caught, ScriptedLM("one", "two", "three") as lm:
        lm("first")
    expected = "2 of 3 scripted replies were not used:\n  2. 'two'\n  3. 'three'"
    assert str(caught.value) == expected


def test_an_error_inside_the_block_is_raised_unchanged():
    with pytest.raises(ZeroDivisionError), ScriptedLM("unused"):
        _ = 1 / 0


EXAMPLE = dspy.Example(question="?", answer="x").with_inputs("question")
REQUEST = {"input": [{"role": "user", "content": "?"}]}
READERS = {
    "forward": lambda agent: agent(question="?"),
    "steps": lambda agent: list(agent.steps(question="?")),
    "adapter": lambda agent: oneturn.ResponsesAdapter(agent).predict(REQUEST),
    "stream": lambda agent: list(oneturn.ResponsesAdapter(agent).predict_stream(REQUEST)),
    "evaluate": lambda agent: oneturn.evaluate(agent, [EXAMPLE] * 2, lambda gold, pred: 1.0, threads=2, progress=False),
    "dspy.Parallel": lambda agent: dspy.Parallel(num_threads=2, disable_progress_bar=True)([(agent, EXAMPLE)] * 2),
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_a_call_beyond_the_script_is_not_treated_as_a_failed_run(reader: Any):
    lm = ScriptedLM()
    with dspy.context(lm=lm), pytest.raises(ScriptError, match="its script has 0 replies"):
        reader(program())
    with pytest.raises(ScriptError):
        lm.check()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ContextLengthError("too long"), dspy.ContextWindowExceededError),
        (RateLimitError("slow"), dspy.LMRateLimitError),
    ],
)
def test_errors_are_raised_as_dspy_errors(error: Exception, expected: type[Exception]):
    with ScriptedLM(error) as lm, pytest.raises(expected):
        lm("?")


def test_a_reply_may_depend_on_the_request():
    def respond(request):
        return finish(answer=request.messages[-1]["content"])

    with ScriptedLM(respond) as lm, dspy.context(lm=lm):
        assert program()(question="how?").answer == "question: how?"


def test_copies_share_the_script():
    with ScriptedLM("one", "two", "three") as lm:
        agent = program()
        agent.set_lm(lm)
        assert lm.copy(temperature=0.5)("a") == ["one"]
        assert agent.deepcopy().step.lm("b") == ["two"]
        assert lm("c") == ["three"]


def test_a_program_with_a_scripted_lm_can_be_saved(tmp_path):
    agent = program()
    agent.set_lm(ScriptedLM("one"))
    agent.save(tmp_path / "program.json")


def test_threads_share_the_script():
    with ScriptedLM(*[str(number) for number in range(50)]) as lm, ThreadPoolExecutor(10) as pool:
        replies = list(pool.map(lambda number: lm(f"{number}")[0], range(50)))
    assert sorted(replies, key=int) == [str(number) for number in range(50)]


def test_call_and_finish_return_steps():
    assert call("find", "why", query="x") == {"thought": "why", "tool_call": {"name": "find", "args": {"query": "x"}}}
    assert finish(answer="x") == {"thought": "", "tool_call": {"name": "finish", "args": {"answer": "x"}}}
