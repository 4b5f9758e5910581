"""The rules applied to typical streams and responses."""

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
    selected = severities or (Severity.error,)
    return {violation.check for violation in check_stream(events, **options) if violation.severity in selected}


def test_mlflow_contract_has_warnings_for_omitted_events():
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


def test_stream_with_created_event_must_follow_openai():
    created = {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress", "output": []}}
    assert {"sequence-missing", "item-not-added", "part-not-added", "terminal-missing"} <= rules([created, DELTA, DONE])


BROKEN: dict[str, tuple[list[Any], str]] = {
    "nothing at all": ([], "empty-stream"),
    "missing text": ([{**DELTA, "delta": "Fo"}, DONE], "text-adds-up"),
    "an unfinished message": ([DELTA], "item-not-done"),
    "a delta after its item": ([DELTA, DONE, DELTA], "event-outside-item"),
    "an output without a call": (done(OUTPUT, MESSAGE), "output-without-call"),
    "an answer without waiting for the tool": (done(CALL, MESSAGE), "call-without-output"),
    "two outputs of one call": (done(CALL, OUTPUT, OUTPUT, MESSAGE), "call-id-reused"),
    "an error without a code": ([{"type": "error", "message": "no"}], "error-shape"),
    "an error in MLflow's own shape": ([{"error": "boom"}], "error-shape"),
    "an error in Databricks' shape": ([{"databricks_output": {"error": "boom"}}], "error-shape"),
    "a failure without an error": ([{"type": "response.failed", "response": {"status": "failed"}}], "error-shape"),
    "two errors": ([{"type": "error", "code": "a", "message": "b"}] * 2, "terminal-twice"),
    "events after the end": ([{"type": "error", "code": "a", "message": "b"}, DELTA, DONE], "after-terminal"),
    "an event without a type": ([DELTA, DONE, {"delta": "x"}], "untyped-event"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_stream_is_an_error(case: str):
    events, rule = BROKEN[case]
    assert rule in rules(events)


def test_mlflow_trace_id_may_follow_the_terminal_event():
    violations = check_stream([DELTA, DONE, {"type": "error", "code": "a", "message": "b"}, {"trace_id": "tr-1"}])
    assert [violation.severity for violation in violations if violation.check == "extra-event"] == [Severity.note]
    assert "after-terminal" not in {violation.check for violation in violations}


def test_unknown_event_is_a_note():
    event = {"type": "response.oneturn.progress", "sequence_number": 0}
    violations = [violation for violation in check_stream([event, DELTA, DONE]) if violation.check == "unknown-event"]
    assert [(violation.severity, violation.event) for violation in violations] == [(Severity.note, 0)]


@pytest.mark.parametrize("items", [(CALL,), (CALL, APPROVAL), (MESSAGE, CALL, OUTPUT, {**CALL, "call_id": "c2"})])
def test_call_without_output_is_an_error_only_if_answered(items: tuple[Any, ...]):
    assert "call-without-output" not in rules(done(*items))
    assert "call-without-output" in rules(done(*items), answered=True)


def test_output_may_belong_to_an_earlier_call():
    assert "output-without-call" not in rules(done(OUTPUT, MESSAGE), earlier_calls=["c1"])


def test_invalid_arguments_are_a_warning():
    for arguments in ("{", "[1]", None):
        assert "arguments-json" in rules(done({**CALL, "arguments": arguments}), Severity.warning)


def test_unknown_item_is_a_note():
    assert rules(done({"type": "x_progress", "id": "x_1"}, MESSAGE)) == set()
    assert "unknown-item" in rules(done({"type": "x_progress", "id": "x_1"}, MESSAGE), Severity.note)


def test_reasoning_must_add_up():
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
def test_error_leak_is_reported(case: str):
    event = {"type": "error", "code": "server_error", "message": LEAKS[case]}
    assert rules([event]) == {"error-leaks"}


def test_leaked_secret_is_not_repeated_in_the_messages():
    violations = check_stream([{"type": "error", "code": None, "message": LEAKS["a key"]}])
    assert {"error-leaks", "error-shape"} <= {violation.check for violation in violations}
    assert "1234567890" not in "".join(violation.message for violation in violations)


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
def test_error_without_leak_passes(message: str):
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

FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "no id": ({"id": None}, "response-id-missing"),
    "still running": ({"status": "in_progress"}, "response-status"),
    "no items": ({"output": None}, "openai-types"),
    "one id for two": ({"output": [MESSAGE, MESSAGE]}, "item-id-reused"),
    "an id that isn't a string": ({"output": [{**MESSAGE, "id": {}}]}, "item-id-missing"),
    "an item in progress": ({"output": [{**MESSAGE, "status": "in_progress"}]}, "item-status"),
    "an output without a call": ({"output": [OUTPUT]}, "output-without-call"),
    "a wrong sum": ({"usage": {**RESPONSE["usage"], "total_tokens": 5}}, "usage-adds-up"),
    "a part above its total": (
        {"usage": {**RESPONSE["usage"], "output_tokens_details": {"reasoning_tokens": 2}}},
        "usage-adds-up",
    ),
    "no usage": ({"usage": None}, "usage-missing"),
    "a failure without a reason": ({"status": "failed"}, "error-shape"),
    "an incomplete response without a reason": ({"status": "incomplete"}, "incomplete-reason"),
    "content that isn't a list": ({"output": [{**MESSAGE, "content": "Four."}]}, "openai-types"),
}


def test_correct_response_passes():
    assert check_response(RESPONSE, answered=True) == []


@pytest.mark.parametrize("case", FAULTS)
def test_faulty_response_breaks_the_rule(case: str):
    fields, rule = FAULTS[case]
    assert rule in {violation.check for violation in check_response({**RESPONSE, **fields})}


def test_compare_ignores_ids():
    events = done(*({**item, "id": "other", "call_id": "other"} for item in RESPONSE["output"]))
    assert compare(events, RESPONSE) == []
    [violation] = compare(events[:-1], RESPONSE)
    assert (violation.check, violation.message) == ("stream-differs", "The stream has 2 items, the response 3.")
    other = {**OUTPUT, "output": "5"}
    assert [violation.check for violation in compare(done(CALL, other, MESSAGE), RESPONSE)] == ["stream-differs"]


JSON_OBJECTS = st.dictionaries(st.text(), st.text() | st.integers() | st.none(), max_size=3)


@settings(max_examples=100, deadline=None)
@given(st.lists(JSON_OBJECTS, max_size=4), st.sampled_from(["\n", "\r\n", "\r"]), st.booleans())
def test_read_stream_reads_all_line_endings(objects: list[Any], newline: str, ended: bool):
    import json

    lines = [f"event: x{newline}data: {json.dumps(entry, ensure_ascii=False)}{newline}{newline}" for entry in objects]
    body = ": a comment" + newline + "".join(lines) + (f"data: [DONE]{newline}{newline}" if ended else "")
    stream = read_stream(body.encode(errors="surrogatepass"))
    assert (list(stream.events), stream.unreadable, stream.ended) == (objects, (), ended)


def test_read_stream_skips_truncated_and_invalid_events():
    stream = read_stream(b'data: [1]\n\ndata: oops\n\ndata: {"a":\ndata: 1}\n\ndata: {"b": 2}')
    assert (stream.events, stream.unreadable, stream.ended) == (({"a": 1},), ("[1]", "oops"), False)


def test_read_stream_takes_the_names_as_clients_do():
    body = 'event: a\ndata: {"type": "a"}\n\nevent: ping\n\ndata:\n\ndata: {"type": "b"}\n\n'
    stream = read_stream(b"\xef\xbb\xbf" + body.encode())
    assert ([event["type"] for event in stream.events], stream.names) == (["a", "b"], ("a", ""))
    assert stream.unreadable == ()


def test_every_rule_has_texts():
    for rule in RULES.values():
        assert rule.asks.endswith((".", ").")), rule
        assert rule.why
