"""What the rules say of streams and responses as one meets them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oneturn.conformance import RULES, Severity, check_response, check_stream, compare
from oneturn.conformance.endpoint import read_stream

DELTA = {"type": "response.output_text.delta", "item_id": "msg_1", "delta": "Four."}
MESSAGE = {
    "type": "message",
    "id": "msg_1",
    "role": "assistant",
    "content": [{"type": "output_text", "text": "Four.", "annotations": []}],
}
DONE = {"type": "response.output_item.done", "item": MESSAGE}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "add", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "4"}
APPROVAL = {"type": "mcp_approval_request", "id": "ar_1", "name": "add", "arguments": "{}", "server_label": "agent"}


def done(*items: Any) -> list[Any]:
    return [{"type": "response.output_item.done", "item": item} for item in items]


def rules(events: list[Any], *severities: Severity, **options: Any) -> set[str]:
    wanted = severities or (Severity.error,)
    return {violation.rule for violation in check_stream(events, **options) if violation.severity in wanted}


def test_mlflow_s_weaker_contract_is_told_what_it_lacks():
    assert rules([DELTA, DONE]) == set()
    assert rules([DELTA, DONE], Severity.warning) == {
        "created-missing",
        "in-progress-missing",
        "sequence-missing",
        "output-index-missing",
        "item-not-added",
        "part-not-added",
        "text-done-missing",
        "terminal-missing",
        "openai-fields",
    }


def test_who_begins_as_openai_does_must_go_on_so():
    created = {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress", "output": []}}
    assert {"sequence-missing", "item-not-added", "part-not-added", "terminal-missing"} <= rules([created, DELTA, DONE])


BROKEN: dict[str, tuple[list[Any], str]] = {
    "nothing at all": ([], "empty-stream"),
    "text that is lost on the way": ([{**DELTA, "delta": "Fo"}, DONE], "text-adds-up"),
    "a message that isn't finished": ([DELTA], "item-not-done"),
    "a delta too late": ([DELTA, DONE, DELTA], "event-outside-item"),
    "an output of nothing": (done(OUTPUT, MESSAGE), "output-without-call"),
    "an answer without waiting for the tool": (done(CALL, MESSAGE), "call-without-output"),
    "a tool that answers twice": (done(CALL, OUTPUT, OUTPUT, MESSAGE), "call-id-reused"),
    "an error without a code": ([{"type": "error", "message": "no"}], "error-shape"),
    "an error in MLflow's own shape": ([{"error": "boom"}], "error-shape"),
    "an error in Databricks' shape": ([{"databricks_output": {"error": "boom"}}], "error-shape"),
    "a failure that doesn't say why": ([{"type": "response.failed", "response": {"status": "failed"}}], "error-shape"),
    "two errors": ([{"type": "error", "code": "a", "message": "b"}] * 2, "terminal-twice"),
    "more after the end": ([{"type": "error", "code": "a", "message": "b"}, DELTA, DONE], "after-terminal"),
    "an event without a type": ([DELTA, DONE, {"delta": "x"}], "untyped-event"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_broken_is_an_error(case: str):
    events, rule = BROKEN[case]
    assert rule in rules(events)


def test_a_trace_id_of_mlflow_s_may_follow_the_end():
    found = check_stream([DELTA, DONE, {"type": "error", "code": "a", "message": "b"}, {"trace_id": "tr-1"}])
    assert [violation.severity for violation in found if violation.rule == "extra-event"] == [Severity.note]
    assert "after-terminal" not in {violation.rule for violation in found}


def test_what_openai_does_not_know_is_no_fault():
    event = {"type": "response.oneturn.progress", "sequence_number": 0}
    found = [violation for violation in check_stream([event, DELTA, DONE]) if violation.rule == "unknown-event"]
    assert [(violation.severity, violation.event) for violation in found] == [(Severity.note, 0)]


@pytest.mark.parametrize("items", [(CALL,), (CALL, APPROVAL), (MESSAGE, CALL, OUTPUT, {**CALL, "call_id": "c2"})])
def test_a_turn_may_end_for_the_client_to_run_a_tool_unless_the_agent_runs_all(items: tuple[Any, ...]):
    assert "call-without-output" not in rules(done(*items))
    assert "call-without-output" in rules(done(*items), answered=True)


def test_an_output_may_belong_to_a_call_of_an_earlier_turn():
    assert "output-without-call" not in rules(done(OUTPUT, MESSAGE), earlier_calls=["c1"])


def test_arguments_that_no_client_can_read_are_a_warning():
    for arguments in ("{", "[1]", None):
        assert "arguments-json" in rules(done({**CALL, "arguments": arguments}), Severity.warning)


def test_an_item_that_openai_does_not_know_is_no_fault():
    assert rules(done({"type": "x_progress", "id": "x_1"}, MESSAGE)) == set()
    assert "unknown-item" in rules(done({"type": "x_progress", "id": "x_1"}, MESSAGE), Severity.note)


def test_reasoning_adds_up_too():
    delta = {"type": "response.reasoning_text.delta", "item_id": "rs_1", "delta": "Hm"}
    item = {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]}
    assert rules([delta, *done(item)]) == {"reasoning-adds-up"}


LEAKS = {
    "a traceback": 'Traceback (most recent call last):\n  File "agent.py", line 3, in predict',
    "a path": "No such file: /home/someone/agent/config.yaml",
    "a path of Windows": r"No such file: C:\agents\config.yaml",
    "a module's place": "raised in agent.py:42",
    "a key": "Incorrect key sk-proj1234567890",
    "a token of Databricks": "401 for dapi0123456789abcdef0123456789abcdef",
    "a header": "sent Authorization: Bearer abcdefghijklmnop1234",
    "a password": "password=hunter2hunter2",
}


@pytest.mark.parametrize("case", LEAKS)
def test_an_error_that_tells_too_much_is_found(case: str):
    event = {"type": "error", "code": "server_error", "message": LEAKS[case]}
    assert rules([event]) == {"error-leaks"}


def test_a_secret_is_not_repeated():
    [found] = [
        violation
        for violation in check_stream([{"type": "error", "code": "x", "message": LEAKS["a key"]}])
        if violation.rule == "error-leaks"
    ]
    assert "1234567890" not in found.message


@pytest.mark.parametrize(
    "message",
    [
        "Not Found: POST /v1/responses",
        "See https://example.com/docs/home/errors for help.",
        "The agent failed (RuntimeError); see its trace for details.",
        "custom_inputs has an unknown field 'colour'; known: question, tone.",
        "The prompt has 9000 tokens, and/or the secret ingredient is missing.",
    ],
)
def test_a_plain_error_is_not_blamed(message: str):
    assert rules([{"type": "error", "code": "server_error", "message": message}]) == set()


RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1.0,
    "model": "agent",
    "parallel_tool_calls": False,
    "tool_choice": "auto",
    "tools": [],
    "status": "completed",
    "output": [CALL, {**OUTPUT, "id": "fco_1", "status": "completed"}, {**MESSAGE, "status": "completed"}],
    "usage": {
        "input_tokens": 3,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 1,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 4,
    },
}

WORSE: dict[str, tuple[dict[str, Any], str]] = {
    "no id": ({"id": None}, "response-id-missing"),
    "still running": ({"status": "in_progress"}, "response-status"),
    "no items": ({"output": None}, "openai-types"),
    "one id for two": ({"output": [MESSAGE, MESSAGE]}, "item-id-reused"),
    "an id that is none": ({"output": [{**MESSAGE, "id": {}}]}, "item-id-missing"),
    "an item at work": ({"output": [{**MESSAGE, "status": "in_progress"}]}, "item-status"),
    "an output of nothing": ({"output": [OUTPUT]}, "output-without-call"),
    "a sum that is none": ({"usage": {**RESPONSE["usage"], "total_tokens": 5}}, "usage-adds-up"),
    "a part above the whole": (
        {"usage": {**RESPONSE["usage"], "output_tokens_details": {"reasoning_tokens": 2}}},
        "usage-adds-up",
    ),
    "no usage": ({"usage": None}, "usage-missing"),
    "a failure without a reason": ({"status": "failed"}, "error-shape"),
    "half an answer without a reason": ({"status": "incomplete"}, "incomplete-reason"),
    "a text that is none": ({"output": [{**MESSAGE, "content": "Four."}]}, "openai-types"),
}


def test_a_right_response_is_not_blamed():
    assert check_response(RESPONSE, answered=True) == []


@pytest.mark.parametrize("case", WORSE)
def test_a_wrong_response_is_found(case: str):
    fields, rule = WORSE[case]
    assert rule in {violation.rule for violation in check_response({**RESPONSE, **fields})}


def test_a_stream_is_compared_with_the_response_ids_aside():
    events = done(*({**item, "id": "other", "call_id": "other"} for item in RESPONSE["output"]))
    assert compare(events, RESPONSE) == []
    [found] = compare(events[:-1], RESPONSE)
    assert (found.rule, found.message) == ("stream-differs", "The stream has 2 items, the response 3.")
    other = {**OUTPUT, "output": "5"}
    assert [violation.rule for violation in compare(done(CALL, other, MESSAGE), RESPONSE)] == ["stream-differs"]


JSON_OBJECTS = st.dictionaries(st.text(), st.text() | st.integers() | st.none(), max_size=3)


@settings(max_examples=100, deadline=None)
@given(st.lists(JSON_OBJECTS, max_size=4), st.sampled_from(["\n", "\r\n", "\r"]), st.booleans())
def test_server_sent_events_are_read_as_they_were_written(objects: list[Any], newline: str, ended: bool):
    import json

    lines = [f"event: x{newline}data: {json.dumps(told, ensure_ascii=False)}{newline}{newline}" for told in objects]
    body = ": a comment" + newline + "".join(lines) + (f"data: [DONE]{newline}{newline}" if ended else "")
    found = read_stream(body.encode(errors="surrogatepass"))
    assert (list(found.events), found.unreadable, found.ended) == (objects, (), ended)


def test_what_is_cut_off_or_no_object_is_no_event():
    found = read_stream(b'data: [1]\n\ndata: oops\n\ndata: {"a":\ndata: 1}\n\ndata: {"b": 2}')
    assert (found.events, found.unreadable, found.ended) == (({"a": 1},), ("[1]", "oops"), False)


def test_every_rule_is_explained():
    for rule in RULES.values():
        assert rule.asks.endswith((".", ").")), rule
        assert rule.why
