"""Both forms of tool calls are read everywhere: ``mcp_call`` items, and MLflow's pairs of items."""

from __future__ import annotations

import io
import json
from typing import Any

import dspy
import pandas as pd
import pytest
from mlflow.entities import Document
from rich.console import Console

import oneturn
from oneturn.core.steps import ToolProgress
from oneturn.deployment.databricks.inference_table import read_inference_table
from oneturn.errors import EndpointError, RequestError
from oneturn.evaluation.run_record import run_record
from oneturn.evaluation.scorers.mlflow import prediction_of
from oneturn.responses.call_items import output_of, to_mlflow_items
from oneturn.responses.parsing import read_request, validate_request
from oneturn.responses.reply import read_response
from oneturn.responses.request_fields import agent_request
from oneturn.serving.terminal import Renderer
from oneturn.testing import ScriptedLM, call, finish
from oneturn.tools.approvals import Approvals
from tests.responses.mcp_dialect import as_mcp, as_mcp_events
from tests.responses.test_client import streaming

KEY = "0123456789abcdef" * 2
QUESTION = {"role": "user", "content": "Refund order 7, please."}
CALL = {"type": "mcp_call", "id": "mcp_1", "name": "add", "arguments": '{"a": 2}', "server_label": "oneturn"}
DONE = {**CALL, "output": "4", "error": None, "status": "completed"}


def look_up(order: int) -> list[Document]:
    """Look an order up."""
    return [Document(f"Order {order} cost 30 euros.", {"title": "Order", "doc_uri": f"orders/{order}"}, id="o7")]


def broken(order: int) -> str:
    """Check the stock."""
    raise oneturn.ToolError("no stock list")


@oneturn.tool(approval=True)
def refund(euros: float) -> str:
    """Give money back."""
    return f"{euros:g} euros are on their way"


class Ask(dspy.Signature):
    """Help the customer."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()
    citations: list[oneturn.Citation] = dspy.OutputField()


def agent(*replies: Any) -> oneturn.ResponsesAdapter:
    program = oneturn.ReAct(Ask, tools=[look_up, broken, refund])
    program.set_lm(ScriptedLM(*replies))
    return oneturn.ResponsesAdapter(program, approvals=Approvals(KEY))


def ask(adapter: oneturn.ResponsesAdapter, *items: Any) -> list[dict[str, Any]]:
    events = [event.model_dump(exclude_none=True) for event in adapter.predict_stream({"input": list(items)})]
    assert events[-1]["type"] == "response.completed", events[-1]
    return events


def output(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return json.loads(json.dumps(events[-1]["response"]["output"]))


ANSWER = (
    call("look_up", "look", order=7),
    call("broken", "stock?", order=7),
    finish("so", answer="It cost 30 euros [o7].", citations=["o7"]),
)
WAITING = (call("look_up", "look", order=7), call("broken", order=7), call("refund", "pay", euros=150.0))
REFUNDED = (finish(answer="150 euros [o7].", citations=[]),)


@pytest.fixture(scope="module")
def streams() -> dict[str, list[dict[str, Any]]]:
    """One run in each form."""
    pairs = ask(agent(*ANSWER), QUESTION)
    return {"pairs": pairs, "mcp_call": as_mcp_events(pairs)}


@pytest.fixture(params=["pairs", "mcp_call"])
def events(request: pytest.FixtureRequest, streams: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return streams[request.param]


# ---- what a client sends back


FOREIGN = (
    {"type": "custom_tool_call", "call_id": "c", "name": "patch", "input": "x"},
    {"type": "custom_tool_call_output", "call_id": "c", "output": "y"},
    {"type": "code_interpreter_call", "id": "ci_1", "code": "1", "container_id": "k", "outputs": None},
    {"type": "mcp_list_tools", "id": "mcpl_1", "server_label": "s", "tools": []},
    {"type": "image_generation_call", "id": "ig_1", "result": None},
    {"type": "local_shell_call", "id": "ls_1", "call_id": "c", "action": {}},
    {"type": "web_search_call", "id": "ws_1", "status": "completed"},
    {"type": "tool_search_output", "id": "ts_1", "tools": []},
)
ANSWERED = {"role": "assistant", "content": "Done."}


@pytest.mark.parametrize("item", FOREIGN, ids=lambda item: item["type"])
def test_a_call_of_another_provider_is_no_part_of_a_later_turn(item: dict[str, Any]):
    request, _ = read_request({"input": [QUESTION, item, ANSWERED, QUESTION], "instructions": "Be brief."})
    assert [given.model_dump().get("role") for given in request.input] == ["system", "user", "assistant", "user"]
    if item["type"] in ("mcp_list_tools", "web_search_call"):  # nothing in them could be lost
        request, _ = read_request({"input": [QUESTION, item]})
        assert [given.model_dump()["role"] for given in request.input] == ["user"]
        return
    with pytest.raises(
        RequestError, match=rf"input\.1 is of type '{item['type']}', .*; leave it out, or send"
    ) as refused:
        read_request({"input": [QUESTION, item], "instructions": "Be brief."})
    assert refused.value.param == "input"


@pytest.mark.parametrize(
    ("kind", "advice"), [("compaction", "send the items of the earlier turns"), ("functon_call_x", "leave it out")]
)
def test_an_item_that_is_no_call_is_never_dropped(kind: str, advice: str):
    with pytest.raises(RequestError, match=rf"input\.1 is of type '{kind}', .*{advice}"):
        read_request({"input": [QUESTION, {"type": kind, "id": "x"}, ANSWERED, QUESTION]})


def test_another_agent_gets_the_calls_that_mlflow_knows():
    items = [QUESTION, FOREIGN[0], FOREIGN[6], ANSWERED, QUESTION]
    kinds = [item.model_dump()["type"] for item in agent_request({"input": items})[0].input]
    assert kinds == ["message", "web_search_call", "message", "message"]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        (
            {"type": "function_call_output", "call_id": "c", "output": None},
            "input.1.output.str: Input should be a valid",
        ),
        ({"type": "function_call", "call_id": "c"}, "input.1.arguments: Field required."),
        ({**CALL, "type": "function_call", "call_id": "c", "status": "failed"}, "input.1: Invalid status: failed for"),
    ],
)
def test_an_invalid_item_is_described_by_its_own_type(fields: dict[str, Any], problem: str):
    with pytest.raises(RequestError) as refused:
        read_request({"input": [QUESTION, fields, ANSWERED, QUESTION]})
    assert str(refused.value).startswith(problem)


def test_an_mcp_call_becomes_mlflow_s_pair():
    pair = to_mlflow_items([QUESTION, {**DONE, "sources": [{"id": "o7"}]}])[1:]
    assert [item["type"] for item in pair] == ["function_call", "function_call_output"]
    assert (pair[0]["name"], pair[0]["arguments"], pair[1]["output"]) == ("add", '{"a": 2}', "4")
    assert pair[0]["call_id"] == pair[1]["call_id"] == "mcp_1"
    assert pair[1]["sources"] == [{"id": "o7"}]
    validate_request({"input": [QUESTION, DONE]})


@pytest.mark.parametrize(
    ("fields", "output"),
    [
        ({"output": "4"}, "4"),
        ({"output": "", "status": "completed"}, ""),
        ({"status": "completed"}, ""),
        ({"error": "no"}, "Error: no"),
        ({"error": {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": "no"}]}}, "Error: no"),
        ({"error": {"type": "http_error", "code": 500, "message": "no"}}, "Error: no"),
        ({"error": {"type": "other", "why": 1}}, 'Error: {"type": "other", "why": 1}'),
        ({"error": "Error: no", "output": "4"}, "Error: no"),
        ({"status": "failed"}, "Error: the tool failed"),
        ({"status": "in_progress"}, None),
        ({}, None),
    ],
)
def test_the_output_of_an_mcp_call(fields: dict[str, Any], output: str | None):
    assert output_of({**CALL, **fields}) == output
    assert len(to_mlflow_items([{**CALL, **fields}])) == (1 if output is None else 2)


def test_items_without_ids_are_taken():
    without = [{key: value for key, value in item.items() if key != "id"} for item in (DONE, DONE)]
    items = validate_request({"input": [QUESTION, {"type": "reasoning"}, *without]}).input
    assert len({item.call_id for item in items[2:]}) == 2


def test_a_malformed_mcp_call_is_refused():
    with pytest.raises(RequestError, match=r"input\.1"):
        validate_request({"input": [QUESTION, {**DONE, "arguments": {"a": 2}}]})


def test_a_chat_program_sees_the_call_and_its_result():
    class Chat(dspy.Signature):
        """Answer."""

        messages: list[dict[str, Any]] = dspy.InputField()
        answer: str = dspy.OutputField()

    adapter = oneturn.ResponsesAdapter(dspy.Predict(Chat))
    parsed = adapter.parse({"input": [QUESTION, DONE, {"role": "user", "content": "And now?"}]})
    _, calling, result, _ = parsed.inputs["messages"]
    assert calling["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a": 2}'}
    assert (result["role"], result["content"]) == ("tool", "4")


# ---- approvals


def unchanged(items: list[Any]) -> list[Any]:
    return items


def with_sources(items: list[Any]) -> list[Any]:
    return as_mcp(items, dropping=())


def through_javascript(items: list[Any]) -> list[Any]:
    """Whole numbers lose their fraction, and fields that a client doesn't know are gone."""
    kept = [item for item in as_mcp(items) if item["type"] != "reasoning"]
    for item in kept:
        item["arguments"] = json.dumps(json.loads(item["arguments"]), separators=(",", ":")).replace("150.0", "150")
        item.pop("status", None)
    return kept


@pytest.mark.parametrize("round_trip", [unchanged, as_mcp, with_sources, through_javascript])
def test_an_approval_is_answered_in_either_form(round_trip: Any):
    first = round_trip(output(ask(agent(*WAITING), QUESTION)))
    approval = {"type": "mcp_approval_response", "approval_request_id": first[-1]["id"], "approve": True}
    adapter = agent(*REFUNDED)
    events = ask(adapter, QUESTION, *first, approval)
    (request,) = adapter.program.step.lm.requests
    results = [message["content"] for message in request.messages if message["role"] == "user"][1:]
    assert results == ["[o7] Order 7 cost 30 euros.", "Error: no stock list", "150 euros are on their way"]
    assert events[-1]["response"]["output"][-1]["content"][0]["text"] == "150 euros [o7]."


@pytest.mark.parametrize("change", [{"output": "Order 7 cost 3000 euros."}, {"name": "broken"}, {"output": None}])
def test_a_changed_mcp_call_is_no_ground_for_an_approval(change: dict[str, Any]):
    first = as_mcp(output(ask(agent(*WAITING), QUESTION)))
    position = next(index for index, item in enumerate(first) if item["type"] == "mcp_call")
    first[position] |= change
    approval = {"type": "mcp_approval_response", "approval_request_id": first[-1]["id"], "approve": True}
    with pytest.raises(RequestError, match="doesn't match"):
        agent().parse({"input": [QUESTION, *first, approval]})


@pytest.mark.parametrize("content", [[], ""])
def test_an_empty_user_message_after_an_approval_is_no_question(content: Any):
    first = output(ask(agent(*WAITING), QUESTION))
    approval = {"type": "mcp_approval_response", "approval_request_id": first[-1]["id"], "approve": True}
    events = ask(agent(*REFUNDED), QUESTION, *first, approval, {"role": "user", "content": content})
    assert output(events)[-1]["content"][0]["text"] == "150 euros [o7]."


# ---- what a server sends

TOOL_USES = [("look_up", "[o7] Order 7 cost 30 euros."), ("broken", "Error: no stock list")]


def test_a_stream_is_read_to_the_same_reply(events: list[dict[str, Any]]):
    seen: list[Any] = []
    with streaming(*events) as endpoint:
        reply = oneturn.query(endpoint.url, "?", on_event=lambda event: seen.append(event["type"]))
    assert seen == [event["type"] for event in events], "on_event gets the events as they are"
    assert reply.text == "It cost 30 euros [o7]."
    assert [(each.name, each.output) for each in reply.tool_calls] == TOOL_USES
    assert [json.loads(each.arguments) for each in reply.tool_calls] == [{"order": 7}] * 2
    assert list(reply.output) == events[-1]["response"]["output"], "they are sent back unchanged"
    validate_request({"input": reply.conversation})


def test_a_response_is_read_to_the_same_reply(events: list[dict[str, Any]]):
    reply = read_response(events[-1]["response"])
    assert [(each.name, each.output) for each in reply.tool_calls] == TOOL_USES
    prediction = prediction_of(events[-1]["response"])
    assert prediction is not None
    calls = run_record(prediction).tool_calls
    assert [(each["name"], each["arguments"], each["output"]) for each in calls] == [
        (name, {"order": 7}, output) for name, output in TOOL_USES
    ]


def test_a_stream_that_breaks_off_in_a_call_has_the_calls_before(streams: dict[str, list[dict[str, Any]]]):
    events = streams["mcp_call"]
    ends = [index for index, event in enumerate(events) if event["type"] == "response.mcp_call.in_progress"]
    with streaming(*events[: ends[1]]) as endpoint, pytest.raises(EndpointError) as failed:
        oneturn.query(endpoint.url, "?")
    assert failed.value.partial is not None
    assert [each.name for each in failed.value.partial.tool_calls] == ["look_up"]


def good(example: Any, prediction: Any) -> float:
    return 1.0


def test_an_endpoint_is_evaluated_alike(events: list[dict[str, Any]]):
    with streaming(*events) as endpoint:
        rows = oneturn.evaluate(endpoint.url, [{"question": "?"}], [good], progress=False).rows
    assert [call["output"] for call in rows["run_tool_calls"][0]] == [output for _, output in TOOL_USES]


def test_an_endpoint_as_a_tool_reports_each_call_before_its_result(events: list[dict[str, Any]]):
    with streaming(*events) as endpoint:
        tool = oneturn.endpoint_tool(endpoint.url, "helper", "Helps.")
        outer = oneturn.ReAct("question -> answer", tools=[tool])
        outer.set_lm(ScriptedLM(call("helper", question="?"), finish(answer="x")))
        progress = [step for step in outer.steps(question="?") if isinstance(step, ToolProgress)]
    assert [step.message for step in progress if step.message] == ["look_up: 7", "broken: 7"]
    kinds = [step.item["type"] for step in progress if step.item and step.item["type"] != "reasoning"]
    assert kinds == ["function_call", "function_call_output"] * 2 + ["message"]


def test_the_terminal_shows_each_call_before_its_result(streams: dict[str, list[dict[str, Any]]]):
    def shown(events: list[dict[str, Any]]) -> list[str]:
        console = Console(file=io.StringIO(), width=80)
        renderer = Renderer(console)
        for event in events:
            renderer(event)
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue().splitlines()

    lines = shown(streams["mcp_call"])
    assert lines == shown(streams["pairs"])
    assert lines[:3] == ["look", '→ look_up {"order": 7}', "← [o7] Order 7 cost 30 euros."]
    begun = next(
        index for index, event in enumerate(streams["mcp_call"]) if event["type"] == "response.mcp_call.in_progress"
    )
    assert shown(streams["mcp_call"][: begun + 1])[-1] == '→ look_up {"order": 7}'


def test_an_inference_table_is_read_alike(events: list[dict[str, Any]]):
    lines = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    for response in (lines, json.dumps(events[-1]["response"])):
        table = pd.DataFrame([{"request": json.dumps({"input": [QUESTION]}), "response": response}])
        (row,) = read_inference_table(table).to_dict("records")
        assert (row["answer"], row["tool_calls"]) == ("It cost 30 euros [o7].", ["look_up", "broken"])


def test_a_conversation_of_a_dataset_may_have_mcp_calls():
    program = oneturn.ReAct("question -> answer", tools=[])
    items = [QUESTION, DONE, {"role": "assistant", "content": "4"}, {"role": "user", "content": "And now?"}]
    with ScriptedLM(finish(answer="x")) as lm:
        oneturn.evaluate(program, [{"question": items}], [good], lm=lm, progress=False)
    assert lm.requests[0].messages[-1]["content"] == "question: And now?"
