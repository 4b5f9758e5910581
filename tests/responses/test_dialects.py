"""The two dialects: what the events of one run become."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, cast

import dspy
import pytest

import oneturn
from oneturn.conformance import check_stream
from oneturn.core.steps import (
    Answer,
    ApprovalWanted,
    Thought,
    ToolCall,
    ToolProgress,
    ToolResult,
    WaitingCall,
    Working,
)
from oneturn.core.usage import Usage
from oneturn.responses.dialects import Dialect, DialectName
from oneturn.responses.item_events import ItemEvents
from oneturn.responses.tool_items import ToolItemForm, tool_error
from oneturn.serving.request_run import dump_event

Event = dict[str, Any]

KEY = "0123456789abcdef" * 2
CALL, RESULT = ToolCall("c1", "look_up", {"word": "tide"}), ToolResult("c1", "look_up", "12")
ANSWER = [Answer(dspy.Prediction(answer="Twelve.", citations=[])), Usage(1, 3, 2)]
APPROVAL = [ApprovalWanted(WaitingCall("refund", {"euros": 9}), ()), Usage(1, 3, 2)]


class Steps:
    """A program that yields given steps."""

    signature = dspy.Signature("question -> answer")
    answer_field = "answer"
    citing_fields = ()

    def __init__(self, *steps: Any):
        self._steps = steps

    def steps(self, **inputs: Any) -> Any:
        for step in self._steps:
            if isinstance(step, Exception):
                raise step
            yield step


def stream(
    *steps: Any,
    name: DialectName = "open_responses",
    form: ToolItemForm | None = None,
    own_tools: Collection[str] = ("look_up",),
) -> list[Event]:
    adapter = oneturn.ResponsesAdapter(Steps(*steps), approvals=oneturn.Approvals(KEY))
    events = adapter.stream(adapter.parse({"input": "?"}))
    return list(Dialect(name, form, own_tools).events(map(dump_event, events)))


def types(events: list[Event], *without: str) -> list[str]:
    """The types of the events between the beginning and the end, without the answer's."""
    names = [event["type"].removeprefix("response.") for event in events[2:-1]]
    first = next((index for index, event in enumerate(events[2:]) if _is_message(event)), len(names))
    return [name for name in names[:first] if name not in without]


def _is_message(event: Event) -> bool:
    return (event.get("item") or {}).get("type") == "message"


def output(events: list[Event]) -> list[Event]:
    items: list[Event] = events[-1]["response"]["output"]
    return items


def test_a_call_is_one_item_from_its_begin_to_its_output():
    events = stream(CALL, RESULT, *ANSWER)
    assert types(events) == [
        "output_item.added",
        "mcp_call.in_progress",
        "mcp_call_arguments.delta",
        "mcp_call_arguments.done",
        "mcp_call.completed",
        "output_item.done",
    ]
    begun, done = events[2]["item"], events[7]["item"]
    assert (begun["status"], begun["arguments"], begun["output"]) == ("in_progress", "", None)
    assert done == {
        "type": "mcp_call",
        "id": begun["id"],
        "server_label": "oneturn",
        "name": "look_up",
        "arguments": '{"word": "tide"}',
        "approval_request_id": None,
        "output": "12",
        "error": None,
        "status": "completed",
    }
    assert {event["output_index"] for event in events[2:8]} == {0}
    assert [item["type"] for item in output(events)] == ["mcp_call", "message"]


def test_a_failed_call_has_its_error():
    events = stream(CALL, ToolResult("c1", "look_up", "Error: no such word", is_error=True), *ANSWER)
    assert types(events)[-2:] == ["mcp_call.failed", "output_item.done"]
    item = output(events)[0]
    assert (item["status"], item["output"], item["error"]) == ("failed", None, tool_error("Error: no such word"))


def test_parallel_calls_keep_their_places():
    second = ToolCall("c2", "look_up", {"word": "moon"})
    events = stream(CALL, second, ToolResult("c2", "look_up", "13"), RESULT, *ANSWER)
    assert [item.get("output") for item in output(events)] == ["12", "13", None]
    done = [event for event in events if event["type"] == "response.output_item.done"]
    assert [event["output_index"] for event in done] == [1, 0, 2]


def test_an_open_call_is_not_in_the_output_of_a_progress_event():
    events = stream(CALL, ToolProgress("c1", "look_up", "halfway"), RESULT, *ANSWER)
    progress = next(event for event in events if "progress" in event)
    assert progress["response"]["output"] == []
    assert types(events, "mcp_call_arguments.delta").index("in_progress") == 3


def test_a_call_that_may_be_the_client_s_waits_for_the_next_event():
    events = stream(CALL, RESULT, *ANSWER, own_tools=())
    assert [item["type"] for item in output(events)] == ["mcp_call", "message"]
    events = stream(CALL, Working(), RESULT, *ANSWER, own_tools=())
    assert types(events)[:5] == [
        "output_item.added",
        "mcp_call.in_progress",
        "mcp_call_arguments.delta",
        "mcp_call_arguments.done",
        "in_progress",
    ]
    assert [item["type"] for item in output(events)] == ["mcp_call", "message"]


def test_calls_that_a_run_ends_with_are_the_client_s():
    second = ToolCall("c2", "other", {})
    events = stream(CALL, RESULT, ToolCall("c3", "mine", {}), second, Answer(dspy.Prediction(answer="")), Usage(1))
    assert [item["type"] for item in output(events)] == ["mcp_call", "function_call", "function_call"]
    assert [item["call_id"] for item in output(events)[1:]] == ["c3", "c2"]
    added = [event["item"]["type"] for event in events if event["type"] == "response.output_item.added"]
    assert added == ["mcp_call", "function_call", "function_call"]
    assert events[-1]["type"] == "response.completed"


def test_an_own_call_that_the_program_leaves_open_has_failed():
    events = stream(CALL, Answer(dspy.Prediction(answer="")), Usage(1))
    assert types(events)[-2:] == ["mcp_call.failed", "output_item.done"]
    assert [(item["type"], item["status"]) for item in output(events)] == [("mcp_call", "failed")]


def test_an_open_call_of_a_failed_run_has_an_error():
    events = stream(CALL, RuntimeError("no"))
    assert [event["type"] for event in events[-4:]] == [
        "response.mcp_call.failed",
        "response.output_item.done",
        "error",
        "response.failed",
    ]
    assert output(events)[0]["error"] == tool_error("Error: the run ended before this tool did.")


def test_hidden_calls_leave_no_gap():
    events = stream(Thought("I look it up"), CALL, RESULT, *ANSWER, form="none")
    assert [item["type"] for item in output(events)] == ["reasoning", "message"]
    added = [event["output_index"] for event in events if event["type"] == "response.output_item.added"]
    assert added == [0, 1]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


@pytest.mark.parametrize(("name", "call"), [("open_responses", ["mcp_call"]), ("mlflow", None)])
def test_hidden_calls_are_shown_before_an_approval_which_needs_them(name: DialectName, call: Any):
    steps = [Thought("First"), CALL, RESULT, Thought("Then"), *APPROVAL]
    events = stream(*steps, name=name, form="none")
    calls = call or ["function_call", "function_call_output"]
    expected = ["reasoning", *calls, "reasoning", "mcp_approval_request"]
    assert [item["type"] for item in output(events)] == expected
    added = [event["item"]["type"] for event in events if event["type"] == "response.output_item.added"]
    assert added == expected


def test_reasoning_after_a_hidden_call_is_not_lost():
    events = stream(Thought("First"), CALL, RESULT, Thought("Then"), *ANSWER, form="none")
    assert [item["type"] for item in output(events)] == ["reasoning", "reasoning", "message"]
    done = [event["item"]["type"] for event in events if event["type"] == "response.output_item.done"]
    assert done == ["reasoning", "reasoning", "message"]


def test_mlflow_s_dialect_is_the_adapter_s_stream():
    adapter = oneturn.ResponsesAdapter(Steps(CALL, RESULT, *ANSWER))
    events = list(adapter.stream(adapter.parse({"input": "?"})))
    assert list(Dialect("mlflow").events(events)) == events


def test_the_form_can_be_chosen_in_both_dialects():
    events = stream(CALL, RESULT, *ANSWER, form="function_call")
    assert [item["type"] for item in output(events)] == ["function_call", "function_call_output", "message"]
    assert events[-1]["response"]["store"] is False
    events = stream(CALL, RESULT, *ANSWER, name="mlflow", form="mcp_call")
    assert [item["type"] for item in output(events)] == ["mcp_call", "message"]
    assert "store" not in events[-1]["response"]


def test_sources_stay_with_their_call():
    from mlflow.entities import Document

    document = Document("Text", {"title": "Tides", "doc_uri": "https://a.example/tides"}, id="tides")
    events = stream(CALL, ToolResult("c1", "look_up", "12", documents=(document,)), *ANSWER)
    assert output(events)[0]["sources"] == [{"id": "tides", "title": "Tides", "url": "https://a.example/tides"}]


def test_an_error_has_the_flat_fields_and_the_nested_object():
    (error, failed) = stream(CALL, RESULT, oneturn.errors.RunError("Too long.", "max_iters"))[-2:]
    assert {name: error[name] for name in ("code", "message", "param")} == {
        "code": "max_iters",
        "message": "Too long.",
        "param": None,
    }
    assert error["error"] == {
        "type": "model_error",
        "code": "max_iters",
        "message": "Too long.",
        "param": None,
        "headers": {"x-should-retry": "false"},
    }
    assert failed["response"]["error"] == {"code": "max_iters", "message": "Too long."}
    assert failed["response"]["usage"]["total_tokens"] == 0
    assert failed["response"]["completed_at"] is None


def test_the_encoding_has_event_lines_in_one_dialect():
    event = {"type": "response.completed", "sequence_number": 0}
    data = b'data: {"type": "response.completed", "sequence_number": 0}\n\n'
    assert Dialect("open_responses").encode(event) == b"event: response.completed\n" + data
    assert Dialect("mlflow").encode(event) == data


def test_progress_names_the_item_of_its_call():
    events = stream(CALL, ToolProgress("c1", "look_up", "half", 0.5), RESULT, *ANSWER)
    [progress] = [event["progress"] for event in events if "progress" in event]
    assert progress["item_id"] == next(item["id"] for item in output(events) if item["type"] == "mcp_call")


def test_a_known_cost_is_in_the_metadata():
    priced = stream(ANSWER[0], Usage(1, 3, 2, cost=0.00125))
    assert priced[-1]["response"]["metadata"] == {"cost_usd": "0.001250"}
    assert stream(*ANSWER)[-1]["response"]["metadata"] == {}


TEXT = {"type": "output_text", "text": "Twelve.", "annotations": [{"type": "url_citation", "url": "u", "title": "t"}]}
MESSAGE = {"type": "message", "id": "m1", "role": "assistant", "status": "completed", "content": [TEXT]}
BEGUN = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
]
ENDED = [
    "response.output_text.annotation.added",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]


def delta(text: str, id: str = "m1") -> Event:
    return {"type": "response.output_text.delta", "item_id": id, "delta": text}


def done(item: Event) -> Event:
    return {"type": "response.output_item.done", "item": item}


DOCUMENTED = {
    "deltas and the finished item": ([delta("Twel"), delta("ve."), done(MESSAGE)], ["response.output_text.delta"]),
    "the finished item only": ([done(MESSAGE)], []),
    "deltas that lack the end": ([delta("Twel"), done(MESSAGE)], ["response.output_text.delta"]),
    "deltas with another id": ([delta("Twelve.", "chunk_1"), done(MESSAGE)], []),
    "deltas and a response": (
        [delta("Twelve."), {"type": "response.completed", "response": {"output": [MESSAGE]}}],
        [],
    ),
}


@pytest.mark.parametrize(("sent", "more"), DOCUMENTED.values(), ids=DOCUMENTED.keys())
def test_the_items_of_another_agent_begin_and_end(sent: list[Event], more: list[str]):
    events = list(Dialect("open_responses").events(sent))
    assert [event["type"] for event in events] == [*BEGUN, *more, *ENDED]
    assert [finding for finding in check_stream(events, contract="openresponses") if finding.severity == "error"] == []
    assert "".join(event["delta"] for event in events if "delta" in event) == "Twelve."
    assert {event.get("output_index", 0) for event in events} == {event.get("content_index", 0) for event in events}
    assert {event["item_id"] for event in events if "item_id" in event} == {events[2]["item"]["id"]}


def test_a_message_that_another_agent_leaves_open_at_an_error_is_incomplete():
    events = list(Dialect("open_responses").events([delta("Twel"), {"type": "error", "code": "c", "message": "m"}]))
    assert [event["type"] for event in events[-3:]] == ["response.output_item.done", "error", "response.failed"]
    [item] = output(events)
    assert (item["status"], item["content"][0]["text"]) == ("incomplete", "Twel")


def test_other_items_of_another_agent_begin_and_end_too():
    call = {"type": "function_call", "id": "f1", "call_id": "c1", "name": "f", "arguments": '{"a": 1}'}
    result = {"type": "function_call_output", "call_id": "c1", "output": "12"}
    thought = {"type": "reasoning", "id": "r1", "summary": [{"type": "summary_text", "text": "Hm"}]}
    sent = [done(thought), done(call), done(result), delta("Twelve."), done(MESSAGE)]
    for form, kinds in (("mcp_call", ["mcp_call"]), ("function_call", ["function_call", "function_call_output"])):
        events = list(Dialect("open_responses", cast(ToolItemForm, form)).events(sent))
        findings = check_stream(events, contract="openresponses", client_tools=["f"])
        assert [finding for finding in findings if finding.severity == "error"] == []
        assert [item["type"] for item in output(events)] == ["reasoning", *kinds, "message"]


def test_a_complete_stream_passes_unchanged():
    adapter = oneturn.ResponsesAdapter(Steps(Thought("Hm"), CALL, RESULT, *ANSWER))
    sent = [dump_event(event) for event in adapter.stream(adapter.parse({"input": "?"}))]
    items = ItemEvents()
    assert [event for each in sent for event in items.read(each)] == sent


def test_a_response_of_another_agent_has_complete_items():
    part = {"type": "output_text", "text": "Twelve."}
    sent = {"output": [{"type": "message", "id": "m1", "content": [part]}]}
    complete = {**MESSAGE, "content": [{**part, "annotations": []}]}
    assert Dialect("open_responses").response(sent)["output"] == [complete]
    ended = Dialect("open_responses").events([{"type": "response.completed", "response": sent}])
    assert output(list(ended)) == [complete]
