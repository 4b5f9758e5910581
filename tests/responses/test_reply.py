"""Streams of other agents: where they end, and what they add up to."""

from __future__ import annotations

import json
from typing import Any

import dspy
import pytest

import oneturn
from oneturn.core.usage import Usage
from oneturn.errors import EndpointError
from oneturn.responses.reply import DONE, ToolUse, read_reply, read_response
from tests.responses.test_client import answering, streaming

CALL = {"type": "function_call", "id": "f1", "call_id": "c1", "name": "get_time", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "12:00"}
TEXT = {"type": "output_text", "text": "It is noon.", "annotations": []}
MESSAGE = {"type": "message", "id": "m1", "role": "assistant", "status": "completed", "content": [TEXT]}
DELTA = {"type": "response.output_text.delta", "item_id": "m1", "output_index": 0, "content_index": 0}

Event = dict[str, Any]


def done(item: Event) -> Event:
    return {"type": "response.output_item.done", "output_index": 0, "item": item}


def added(item: Event) -> Event:
    return {"type": "response.output_item.added", "output_index": 0, "item": item}


def response(kind: str, *output: Event, id: str = "r1") -> Event:
    usage = {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7}
    return {"type": f"response.{kind}", "response": {"id": id, "output": list(output), "usage": usage}}


FIRST_CALL = [response("created"), added(CALL), done(CALL), response("completed", CALL), done(OUTPUT)]
OPENAI_AGENTS = [
    *FIRST_CALL,
    response("created", id="r2"),
    added(MESSAGE | {"content": []}),
    DELTA | {"delta": TEXT["text"]},
    done(MESSAGE),
    response("completed", MESSAGE, id="r2"),
]
PLAIN = [done(CALL), done(OUTPUT), DELTA | {"delta": "It is "}, DELTA | {"delta": "noon."}, done(MESSAGE)]
STREAMS = {"one response.completed per LM call": OPENAI_AGENTS, "no response.completed": PLAIN}


@pytest.fixture(params=STREAMS)
def events(request: pytest.FixtureRequest) -> list[Event]:
    return STREAMS[request.param]


def test_the_whole_answer_is_read(events: list[Event]):
    with streaming(*events) as endpoint:
        reply = oneturn.query(endpoint.url, "What time is it?")
    assert reply.text == "It is noon."
    assert reply.tool_calls == (ToolUse("get_time", "{}", "12:00"),)
    assert reply.output == (CALL, OUTPUT, MESSAGE)


def test_usage_is_summed():
    with streaming(*OPENAI_AGENTS) as endpoint:
        reply = oneturn.query(endpoint.url, "What time is it?")
    assert reply.usage == Usage(input_tokens=10, output_tokens=4)
    assert reply.response_id == "r2"


def test_it_is_the_answer_of_a_tool_an_evaluation_and_a_predict_function(events: list[Event]):
    example = dspy.Example(question="time?", answer="It is noon.").with_inputs("question")
    with streaming(*events) as endpoint:
        tool = oneturn.endpoint_tool(endpoint.url, name="desk", description="Ask.")
        assert str(tool(question="time?")) == "It is noon."
        result = oneturn.evaluate(endpoint.url, [example], lambda row, got, trace=None: row.answer == got.answer)
        assert result.score == 1.0


CUT = {
    "after a call": [*FIRST_CALL[:4]],
    "after its output": FIRST_CALL,
    "in the second LM call": OPENAI_AGENTS[:-2],
    "after deltas": PLAIN[:-1],
    "after a call with no completed": PLAIN[:1],
    "after the message, with no completed": PLAIN,
}


@pytest.mark.parametrize("events", CUT.values(), ids=CUT.keys())
def test_a_cut_stream_is_an_error(events: list[Event]):
    with pytest.raises(EndpointError) as error:
        read_reply(events)
    assert error.value.code == "stream_ended"


INCOMPLETE = {
    "no message": PLAIN[:2],
    "a call without its output": [done(CALL), done(MESSAGE)],
    "an open item": [*PLAIN, added({**MESSAGE, "id": "m2"})],
    "an open message": [*PLAIN, DELTA | {"item_id": "m2", "delta": "And it"}],
    "an incomplete message": [*PLAIN[:4], done({**MESSAGE, "status": "incomplete"})],
    "a call, its response and its output": FIRST_CALL,
}


@pytest.mark.parametrize("events", INCOMPLETE.values(), ids=INCOMPLETE.keys())
def test_done_after_an_incomplete_answer_is_an_error(events: list[Event]):
    with pytest.raises(EndpointError, match="without a terminal event") as error:
        read_reply([*events, DONE])
    assert error.value.partial is not None


def test_a_body_that_ends_without_done_is_cut():
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in PLAIN)
    with answering(body) as endpoint, pytest.raises(EndpointError) as error:
        oneturn.query(endpoint.url, "time?")
    assert error.value.code == "stream_ended"
    assert error.value.partial is not None
    assert error.value.partial.text == "It is noon."


def test_a_call_for_the_client_ends_a_response():
    reply = read_reply([done(CALL), response("completed", CALL), DONE])
    assert reply.tool_calls == (ToolUse("get_time", "{}", None),)


def test_items_with_equal_ids_are_different_items():
    first, second = (MESSAGE | {"id": "__fake_id__", "content": [TEXT | {"text": text}]} for text in ("One. ", "Two."))
    events = [done(first), done(CALL), response("completed", first, CALL), done(OUTPUT), done(second)]
    reply = read_reply([*events, response("completed", second)])
    assert reply.text == "One. Two."
    assert reply.output == (first, CALL, OUTPUT, second)


HALF = {**MESSAGE, "status": "incomplete"}


@pytest.mark.parametrize(
    ("response", "code"),
    [
        ({"status": "incomplete", "incomplete_details": {"reason": "deadline_exceeded"}}, "deadline_exceeded"),
        ({"status": "failed", "error": {"code": "lm_error", "message": "It is away."}}, "lm_error"),
    ],
)
def test_a_response_that_is_not_complete_is_an_error_with_its_items(response: Event, code: str):
    with pytest.raises(EndpointError) as error:
        read_response({**response, "output": [HALF]})
    assert error.value.code == code
    assert error.value.partial is not None
    assert error.value.partial.text == TEXT["text"]


def test_a_refusal_is_the_text_of_an_answer():
    refusal = {**MESSAGE, "content": [{"type": "refusal", "refusal": "I can't help."}]}
    assert read_response({"status": "completed", "output": [refusal]}).text == "I can't help."
