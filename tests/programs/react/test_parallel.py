"""Several calls that the LM asks for together."""

from __future__ import annotations

import json
import threading
from typing import Any

import dspy

import oneturn
from oneturn import ReAct
from oneturn.core.steps import ApprovalWanted, Step, ToolCall, ToolResult
from oneturn.testing import ScriptedLM, call, finish


class Ask(dspy.Signature):
    """Answer."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


def together(*calls: dict[str, Any], thought: str = "both") -> dict[str, Any]:
    first, *others = [each["tool_call"] for each in calls]
    return {"thought": thought, "tool_call": first, "parallel_calls": others}


def run(*replies: Any, tools: Any, **options: Any) -> tuple[list[Step], ScriptedLM]:
    program = ReAct(Ask, tools=tools, parallel_calls=True, **options)
    with ScriptedLM(*replies) as lm, dspy.context(lm=lm):
        return list(program.steps(question="?")), lm


def of(steps: list[Step], kind: type) -> list[Any]:
    return [step for step in steps if isinstance(step, kind)]


def test_calls_asked_for_together_are_made_together_and_read_in_their_order():
    meeting = threading.Barrier(2, timeout=30)
    first_waits = threading.Event()

    def look_up(word: str) -> str:
        """Look up."""
        meeting.wait()
        if word == "a":
            assert first_waits.wait(30)
        else:
            first_waits.set()
        return f"meaning of {word}"

    steps, lm = run(together(call("look_up", word="a"), call("look_up", word="b")), finish(answer="x"), tools=[look_up])
    calls, results = of(steps, ToolCall), of(steps, ToolResult)
    assert [made.args["word"] for made in calls] == ["a", "b"]
    assert sorted(result.call_id for result in results) == sorted(made.call_id for made in calls)
    assert [message["content"] for message in lm.requests[1].messages[2:]] == [
        '{"thought": "both", "tool_call": {"name": "look_up", "args": {"word": "a"}}}',
        "meaning of a",
        '{"thought": "", "tool_call": {"name": "look_up", "args": {"word": "b"}}}',
        "meaning of b",
    ]


def echo(word: str) -> str:
    """Say it again."""
    return word


def test_the_lm_is_told_that_it_may_and_constrained_to_tools():
    _, lm = run(finish(answer="x"), tools=[echo])
    request = lm.requests[0]
    assert "further calls that don't need its result go into parallel_calls" in request.text
    offered = request.schema["properties"]["parallel_calls"]["items"]["properties"]["name"]["enum"]
    assert offered == ["echo"]


def test_a_program_that_does_not_ask_for_it_has_the_prompt_and_schema_of_one_call():
    program = ReAct(Ask, tools=[echo])
    with ScriptedLM(together(call("echo", word="a"), call("echo", word="b")), finish(answer="x")) as lm:
        program.set_lm(lm)
        steps = list(program.steps(question="?"))
    assert [made.args["word"] for made in of(steps, ToolCall)] == ["a"]
    assert "parallel_calls" not in lm.requests[0].text + json.dumps(lm.requests[0].schema)


def test_what_can_not_be_called_together_is_left_out():
    step = together(call("echo", word="a"), call("echo", word="a"), finish(answer="early"), call("nothing"))
    steps, _ = run(step, finish(answer="x"), tools=[echo])
    assert {(result.name, result.is_error) for result in of(steps, ToolResult)} == {("nothing", True), ("echo", False)}


def test_a_call_that_needs_a_person_waits_until_the_others_are_made():
    pay = oneturn.tool(lambda euros: "paid", approval=True)
    pay.name = "pay"
    steps, _ = run(together(call("pay", euros=3), call("echo", word="a")), tools=[echo, pay])
    (wanted,) = of(steps, ApprovalWanted)
    assert [done.name for done in wanted.finished] == ["echo"]
    assert (wanted.waiting.name, wanted.waiting.args) == ("pay", {"euros": 3})
