"""Served requests must not leave objects in memory."""

from __future__ import annotations

import gc

import dspy
import pytest

import oneturn
from benchmarks.endless_lm import EndlessLM


def objects() -> int:
    gc.collect()
    return len(gc.get_objects())


def answering_agent() -> oneturn.ResponsesAdapter:
    """An agent that makes one tool call and answers."""

    def look_up(word: str) -> str:
        """Look a word up."""
        return f"the meaning of {word}" * 10

    program = oneturn.ReAct("question -> answer", tools=[look_up])
    program.set_lm(EndlessLM())
    return oneturn.ResponsesAdapter(program)


def ask(agent: oneturn.ResponsesAdapter, requests: int) -> None:
    """Send different questions, every other one streamed."""
    for number in range(requests):
        request = {"input": [{"role": "user", "content": f"Question {number}? " + "And a long story. " * 50}]}
        if number % 2:
            agent.predict(request)  # type: ignore[arg-type]
        else:
            list(agent.predict_stream(request))  # type: ignore[arg-type]


def module_agent() -> oneturn.ResponsesAdapter:
    module = dspy.ChainOfThought("question -> answer")
    module.set_lm(EndlessLM("[[ ## reasoning ## ]]\nSo.\n\n[[ ## answer ## ]]\n4\n\n[[ ## completed ## ]]"))
    return oneturn.ResponsesAdapter(module)


@pytest.mark.parametrize("build", [answering_agent, module_agent])
def test_requests_leave_no_objects_behind(build: object):
    agent = build()  # type: ignore[operator]
    ask(agent, 20)
    before = objects()
    ask(agent, 100)
    assert objects() - before < 50, "each request leaves something behind"


def test_serving_adds_nothing_to_the_lm_history():
    program = oneturn.ReAct("question -> answer", tools=[])
    lm = EndlessLM('{"thought": "So.", "tool_call": {"name": "finish", "args": {"answer": "4"}}}')
    program.set_lm(lm)
    oneturn.ResponsesAdapter(program).predict({"input": [{"role": "user", "content": "?"}]})  # type: ignore[arg-type]
    assert lm.history == []
    program(question="?")
    assert lm.history
