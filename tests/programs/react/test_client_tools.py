"""Tools of the client beside a program's own, in each way of tool calling."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

import oneturn
from oneturn.core.client_tools import ClientTool, ClientTools
from oneturn.core.run_context import RunContext
from oneturn.core.steps import AnswerDelta, ClientCall, FinishedCall, Resumption, Step, Thought, ToolResult
from oneturn.core.usage import Usage
from tests.programs.react.chat_stub import ChatStub, calls, chat_stub

PLACE = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = {name: ClientTool(name, f"Tell the {name}.", PLACE) for name in ("weather", "time")}
WAYS = ("native", "schema", "text")


def price(item: str) -> str:
    """Look up a price."""
    return f"{item} costs 4 euros"


def run(stub: ChatStub, way: str, at: Resumption | None = None, required: bool = False, **options: Any) -> list[Step]:
    """The steps of a run, without signs of life."""
    program = oneturn.ReAct("question -> answer", tools=[price], tool_calling=way, parallel_calls=True, **options)
    program.set_lm(stub.lm())
    context = RunContext()
    context.client_tools = ClientTools(TOOLS, required)
    with context.active():
        steps = program.steps(question="?") if at is None else program.resume(at, question="?")
        return [step for step in steps if isinstance(step, ClientCall | ToolResult | AnswerDelta | Usage)]


def reply(way: str, *made: tuple[str, dict[str, Any]]) -> Any:
    """A reply with calls, as an LM gives it that is asked in this way."""
    if way == "native":
        return calls(*made)
    first, *more = [{"name": name, "args": args} for name, args in made]
    return json.dumps({"thought": "", "tool_call": first, "parallel_calls": more})


def offered(body: dict[str, Any], way: str) -> Iterator[str]:
    """The names that a request offers, its schema or its functions; in text, those that the prompt lists."""
    names = ("price", "weather", "time", "finish")
    if way == "native":
        yield from (tool["function"]["name"] for tool in body["tools"])
    elif way == "schema":
        schema = json.dumps(body["response_format"])
        yield from (name for name in names if f'"enum": ["{name}"]' in schema)
    else:
        yield from (name for name in names if f"- {name}(" in body["messages"][0]["content"])


@pytest.mark.parametrize("way", WAYS)
def test_own_calls_of_a_step_are_run_before_the_client_s_end_it(way: str):
    step = reply(way, ("price", {"item": "tea"}), ("weather", {"city": "Rome"}), ("time", {"city": "Oslo"}))
    with chat_stub(step) as stub:
        result, first, second, usage = run(stub, way)
    assert isinstance(result, ToolResult)
    assert isinstance(first, ClientCall)
    assert isinstance(second, ClientCall)
    assert [(each.name, each.args) for each in (first, second)] == [
        ("weather", {"city": "Rome"}),
        ("time", {"city": "Oslo"}),
    ]
    assert isinstance(usage, Usage)
    assert usage.lm_calls == 1
    assert list(offered(stub.requests[0], way)) == ["price", "weather", "time", "finish"]


@pytest.mark.parametrize("way", WAYS)
def test_a_run_resumes_from_the_client_s_outputs(way: str):
    finished = (
        FinishedCall("price", {"item": "tea"}, "", "tea costs 4 euros"),
        FinishedCall("weather", {"city": "Rome"}, "", "sunny", by_client=True),
        FinishedCall("time", {"city": "Oslo"}, "", "noon", by_client=True, same_step=True),
    )
    with chat_stub(reply(way, ("finish", {"answer": "Tea at noon."}))) as stub:
        steps = run(stub, way, Resumption(None, finished))
    assert "".join(step.text for step in steps if isinstance(step, AnswerDelta)) == "Tea at noon."
    messages = stub.requests[0]["messages"][2:]
    assert [message["content"] for message in messages if message["role"] in ("user", "tool")] == [
        "tea costs 4 euros",
        *(["sunny", "noon"]),
    ]
    if way == "native":
        _, _, calling, *results = messages
        assert [made["function"]["name"] for made in calling["tool_calls"]] == ["weather", "time"]
        assert [made["id"] for made in calling["tool_calls"]] == [result["tool_call_id"] for result in results]


@pytest.mark.parametrize("way", WAYS)
def test_a_required_call_comes_before_the_end(way: str):
    replies = reply(way, ("finish", {"answer": "No."})), reply(way, ("time", {"city": "Oslo"}))
    with chat_stub(*replies) as stub:
        steps = run(stub, way, required=True)
    assert [step.name for step in steps if isinstance(step, ClientCall)] == ["time"]
    first, second = stub.requests
    if way != "text":
        assert list(offered(first, way)) == ["price", "weather", "time"]
    assert "Don't call finish yet. Call time or weather" in first["messages"][-1]["content"]
    assert "finish can't be called yet" in str(second["messages"])


@pytest.mark.parametrize("way", WAYS)
def test_the_last_step_of_a_required_call_offers_no_own_tool(way: str):
    with chat_stub(reply(way, ("time", {"city": "Oslo"}))) as stub:
        steps = run(stub, way, required=True, max_iters=1)
    assert [step.name for step in steps if isinstance(step, ClientCall)] == ["time"]
    if way == "native":
        assert list(offered(stub.requests[0], way)) == ["weather", "time"]


def test_text_instead_of_a_required_call_is_no_answer():
    with chat_stub("It is noon.", calls(("time", {"city": "Oslo"}))) as stub:
        steps = run(stub, "native", required=True)
    assert [step.name for step in steps if isinstance(step, ClientCall)] == ["time"]
    assert not [step for step in steps if isinstance(step, AnswerDelta) and step.checked]


def test_the_only_call_that_is_allowed_is_the_choice():
    program = oneturn.ReAct("question -> answer", tools=[])
    context = RunContext()
    context.client_tools = ClientTools({"time": TOOLS["time"]}, required=True)
    with chat_stub(calls(("time", {"city": "Oslo"}))) as stub, context.active():
        program.set_lm(stub.lm())
        assert [step.name for step in program.steps(question="?") if isinstance(step, ClientCall)] == ["time"]
    assert stub.requests[0]["tool_choice"] == {"type": "function", "function": {"name": "time"}}


def test_what_nothing_proves_is_told_in_the_client_s_words():
    reported = FinishedCall("price", {"item": "tea"}, "they pay", "tea is free")
    with chat_stub(calls(("price", {"item": "tea"})), calls(("finish", {"answer": "4"}))) as stub:
        result, *_ = run(stub, "native", Resumption(None, (), unverified=(reported,)))
    assert isinstance(result, ToolResult), "the tool may be called"
    (_, asked) = stub.requests[0]["messages"]
    assert asked["role"] == "user"
    assert '- price({"item": "tea"}): tea is free' in asked["content"]
    assert "they pay" not in str(stub.requests[0])


def test_a_program_without_tools_of_a_client_sends_what_it_always_sent():
    program = oneturn.ReAct("question -> answer", tools=[price])
    replies = calls(("price", {"item": "tea"})), calls(("finish", {"answer": "4"}))
    bodies = []
    for context in (None, RunContext()):
        with chat_stub(*replies) as stub:
            program.set_lm(stub.lm())
            if context is None:
                list(program.steps(question="?"))
            else:
                context.client_tools = ClientTools()
                with context.active():
                    list(program.steps(question="?"))
        bodies.append(json.dumps(stub.requests))
    assert bodies[0] == bodies[1]
    assert program.steps_schema.client_tools == frozenset()


def test_thoughts_before_a_client_s_call_are_steps():
    program = oneturn.ReAct("question -> answer", tools=[price])
    context = RunContext()
    context.client_tools = ClientTools(TOOLS)
    with chat_stub(calls(("time", {"city": "Oslo"}), text="I ask.")) as stub, context.active():
        program.set_lm(stub.lm())
        thoughts = [step.text for step in program.steps(question="?") if isinstance(step, Thought)]
    assert thoughts == ["I ask."]
