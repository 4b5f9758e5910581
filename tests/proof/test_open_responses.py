"""Whatever a program does, its stream in the dialect of Open Responses keeps to the schemas.

    pytest tests/proof/test_open_responses.py --hypothesis-profile=open-responses

tries 10,000 streams.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.types.responses import ResponsesAgentRequest

from oneturn import ResponsesAdapter
from oneturn.core.run_context import RunContext
from oneturn.responses.dialects import Dialect
from oneturn.responses.tool_items import ToolItemForm
from oneturn.serving.request_run import dump_event
from oneturn.tools.approvals import Approvals
from tests.open_responses import Event, check_events, check_response
from tests.proof.failures import SECRET
from tests.proof.profile import proof
from tests.proof.scripted import KEY
from tests.proof.written import Written, any_run, orderly_runs, signatures

REQUEST = ResponsesAgentRequest(input=[{"role": "user", "content": "?"}])
FORMS: tuple[ToolItemForm, ...] = ("mcp_call", "function_call", "none")


def events_of(run: list[Any], signature: Any, dialect: Dialect, stop_at: int | None = None) -> list[Event]:
    adapter = ResponsesAdapter(Written(run, signature), approvals=Approvals(KEY))
    control = RunContext()

    def dumped() -> Any:
        with control.active():
            for number, event in enumerate(adapter.predict_stream(REQUEST)):
                if number == stop_at:
                    control.cancel("shutting_down")
                yield dump_event(event)

    return list(dialect.events(dumped()))


@proof
@given(
    any_run | orderly_runs(),
    signatures,
    st.sampled_from(FORMS),
    st.sets(st.sampled_from(["look_up", "find"])),
    st.none() | st.integers(0, 12),
)
def test_every_stream_keeps_to_the_schemas(
    run: list[Any], signature: Any, form: ToolItemForm, own_tools: set[str], stop_at: int | None
):
    events = events_of(run, signature, Dialect("open_responses", form, own_tools), stop_at)
    # Hidden calls that an approval needs come after a text that was begun before.
    revealed = form == "none" and "mcp_approval_request" in str(events[-1])
    check_events(events, in_order=not revealed)
    assert SECRET not in str(events)
    output = events[-1]["response"]["output"]
    if form == "mcp_call":
        called = [item["call_id"] for item in output if item["type"] == "function_call"]
        assert not [item for item in output if item["type"] == "function_call_output"]
        assert not called or events[-1]["type"] == "response.completed"  # left to the client
    if form == "none" and not [item for item in output if item["type"] == "mcp_approval_request"]:
        assert {item["type"] for item in output} <= {"reasoning", "message"}


@proof
@given(any_run | orderly_runs(), signatures, st.sampled_from(FORMS))
def test_a_response_that_is_not_streamed_keeps_to_them_too(run: list[Any], signature: Any, form: ToolItemForm):
    adapter = ResponsesAdapter(Written(run, signature), approvals=Approvals(KEY))
    streamed = events_of(run, signature, Dialect("open_responses", form))[-1]
    if streamed["type"] == "response.failed":
        return
    response = Dialect("open_responses", form).response(adapter.predict(REQUEST).model_dump(exclude_none=True))
    check_response(response)
    for one, other in zip(response["output"], streamed["response"]["output"], strict=True):
        assert {**one, "id": "", "call_id": ""} == {**other, "id": "", "call_id": ""}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["mlflow", "open_responses"])
def test_a_stream_of_another_agent_gets_its_begin_and_its_end(name: Any, form: ToolItemForm):
    """An agent after MLflow's documentation sends finished items only."""
    items = [
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{}", "status": "completed"},
        {"type": "function_call_output", "id": "fco_1", "call_id": "c1", "output": "12", "status": "completed"},
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "Twelve.", "annotations": []}],
        },
    ]
    sent = [{"type": "response.output_item.done", "item": item} for item in items]
    events = list(Dialect(name, form).events(sent))
    done = [event["item"]["type"] for event in events if event["type"] == "response.output_item.done"]
    expected = {"mcp_call": ["mcp_call", "message"], "none": ["message"]}
    assert done == expected.get(form, [item["type"] for item in items])
    if name == "open_responses":
        assert events[0]["type"] == "response.created"
        assert [item["type"] for item in events[-1]["response"]["output"]] == done
        assert [event["sequence_number"] for event in events] == list(range(len(events)))


@proof
@given(any_run | orderly_runs(), signatures, st.sampled_from(FORMS), st.booleans())
def test_an_agent_that_sends_deltas_and_finished_items_keeps_to_them_too(
    run: list[Any], signature: Any, form: ToolItemForm, begins: bool
):
    """As MLflow's documentation writes it; some agents also send the events that begin an item."""
    adapter = ResponsesAdapter(Written(run, signature), approvals=Approvals(KEY))
    kinds = ["response.output_text.delta", "response.output_item.done", "error"]
    kinds += ["response.output_item.added"] if begins else []
    positions = ("sequence_number", "output_index", "content_index", "logprobs")
    sent = [
        {name: value for name, value in event.items() if name not in positions}
        for event in map(dump_event, adapter.predict_stream(REQUEST))
        if event["type"] in kinds
    ]
    dialect = Dialect("open_responses", form)
    events = list(dialect.events(sent))
    check_events(events, in_order=not (form == "none" and "mcp_approval_request" in str(events[-1])))
    assert text_of(events) == text_of(sent)


def text_of(events: list[Any]) -> list[str]:
    """The texts of the finished messages."""
    items = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    return ["".join(part["text"] for part in item["content"]) for item in items if item["type"] == "message"]
