"""What a served request leaves behind in the process: nothing."""

from __future__ import annotations

import gc

import dspy
import pytest

import oneturn
from benchmarks.endless import EndlessLM
from benchmarks.memory import answering_agent, ask


def objects() -> int:
    gc.collect()
    return len(gc.get_objects())


def around_a_module() -> oneturn.ResponsesAdapter:
    module = dspy.ChainOfThought("question -> answer")
    module.set_lm(EndlessLM("[[ ## reasoning ## ]]\nSo.\n\n[[ ## answer ## ]]\n4\n\n[[ ## completed ## ]]"))
    return oneturn.ResponsesAdapter(module)


@pytest.mark.parametrize("build", [answering_agent, around_a_module])
def test_objects_do_not_pile_up(build: object):
    agent = build()  # type: ignore[operator]
    ask(agent, 20)
    before = objects()
    ask(agent, 100)
    assert objects() - before < 50, "each request leaves something behind"


def test_what_is_run_outside_a_server_still_has_its_history():
    program = oneturn.ReAct("question -> answer", tools=[])
    lm = EndlessLM('{"thought": "So.", "tool_call": {"name": "finish", "args": {"answer": "4"}}}')
    program.set_lm(lm)
    oneturn.ResponsesAdapter(program).predict({"input": [{"role": "user", "content": "?"}]})  # type: ignore[arg-type]
    assert lm.history == []
    program(question="?")
    assert lm.history
