"""Streams of other agents: where they end, and what they add up to."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import dspy
import pytest
from rich.console import Console

import oneturn
from oneturn.core.usage import Usage
from oneturn.errors import EndpointError
from oneturn.responses.event_stream import DONE
from oneturn.responses.reply import ToolUse, read_reply, read_response
from oneturn.serving.terminal import Renderer
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


def test_a_body_that_ends_after_a_call_says_what_was_seen():
    """The call may be the agent's, whose run was cut, or the client's: only ``[DONE]`` tells."""
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in FIRST_CALL[:4])
    with answering(body) as endpoint, pytest.raises(EndpointError, match="ends in a call of get_time") as error:
        oneturn.query(endpoint.url, "time?")
    assert error.value.code == "stream_ended"
    assert "closed the connection" not in str(error.value)


def test_an_output_of_parts_is_read_as_text():
    parts = [
        {"type": "input_text", "text": "12:00"},
        {"type": "input_image", "image_url": "data:image/png;base64,AA"},
        {"type": "input_file", "filename": "times.pdf", "file_id": "f"},
    ]
    reply = read_response({"output": [CALL, {**OUTPUT, "output": parts}, MESSAGE]})
    assert reply.tool_calls[0].output == "12:00\n[image]\n[file: times.pdf]"


WHOLE = {
    "type": "response.completed",
    "custom_outputs": {"a": 1},
    "trace_id": "tr-1",
    "databricks_output": {"trace": {"info": {"trace_id": "tr-1"}}, "error": None},
    "response": {
        "id": "r1",
        "output": [
            CALL,
            {**OUTPUT, "sources": [{"id": "s", "title": "S", "url": "u"}]},
            {"type": "mcp_call", "id": "x", "name": "f", "arguments": "{}", "output": "o", "error": {"content": []}},
            {"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": "t"}]},
            {**MESSAGE, "content": [{**TEXT, "annotations": [{"type": "url_citation", "url": "u", "title": "T"}]}]},
        ],
        "usage": {"input_tokens": 1, "input_tokens_details": {"cached_tokens": 1}, "output_tokens": 1},
        "custom_outputs": {"b": 2},
        "metadata": {"answer_field": "answer", "trace_id": "tr-1"},
        "incomplete_details": {"reason": "r"},
        "error": None,
    },
}


def variants(value: Any) -> Iterator[Any]:
    """The value with each part of it replaced by a value of another type."""
    yield from (None, "x", 7, True, [], {}, ["x"], [[]], {"x": 1})
    if isinstance(value, dict):
        yield from ({**value, key: other} for key in value for other in variants(value[key]))
    elif isinstance(value, list):
        yield from ([*value[:at], other, *value[at + 1 :]] for at in range(len(value)) for other in variants(value[at]))


def test_a_wrong_type_is_left_out_or_an_endpoint_error():
    item = {"type": "response.output_item.done", "item": WHOLE["response"]["output"][-1]}
    delta = DELTA | {"delta": "It"}
    read = refused = 0
    for event in (WHOLE, item, delta):
        for odd in variants(event):
            if not isinstance(odd, dict):
                continue  # what isn't an object isn't an event
            try:
                assert isinstance(read_reply([odd, DONE], Renderer(Console(file=io.StringIO()))).text, str)
                read += 1
            except EndpointError:
                refused += 1
    assert read > refused > 0


@pytest.mark.parametrize("output", ["Hi", {"text": "Hi"}, ["Hi"], 7])
def test_an_output_that_is_no_list_of_items_is_an_error(output: Any):
    with pytest.raises(EndpointError, match="no list of") as error:
        read_response({"status": "completed", "output": output})
    assert error.value.code == "bad_stream"


def test_what_the_answer_does_not_need_may_have_any_type():
    message = {**MESSAGE, "content": ["It is ", {**TEXT, "text": "noon.", "annotations": ["https://a.example"]}]}
    reply = read_response({"output": [message], "metadata": "x", "usage": "5", "custom_outputs": ["a"]})
    assert (reply.text, reply.sources, reply.custom_outputs, reply.usage) == ("It is noon.", (), {}, Usage())


@pytest.mark.parametrize("error", [{"type": "error", "message": "It broke."}, {"error": {"message": "It broke."}}])
def test_an_error_after_an_answer_is_the_error(error: Event):
    """A guardrail refuses the answer, say; or the run fails between two LM calls."""
    with streaming(*OPENAI_AGENTS, error) as endpoint, pytest.raises(EndpointError, match="It broke") as caught:
        oneturn.query(endpoint.url, "What time is it?")
    assert caught.value.partial is not None
    assert caught.value.partial.text == "It is noon."
