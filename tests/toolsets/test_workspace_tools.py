"""Functions of Unity Catalog, Genie spaces and chat endpoints as tools, against the stand-in of a workspace."""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from databricks.sdk.service.catalog import ColumnTypeName, FunctionInfo, FunctionParameterInfo, FunctionParameterInfos
from databricks.sdk.service.sql import ExecuteStatementRequestOnWaitTimeout

import oneturn
from oneturn.config import AgentConfig
from oneturn.conformance import Severity, check_stream
from oneturn.core.run_context import RunContext
from oneturn.errors import ConfigError, ToolError
from oneturn.testing import ScriptedLM, call, finish
from oneturn.toolsets.factory import build_tools, tool_resources
from tests.databricks.conftest import unused_port
from tests.databricks.workspace import OWNER, Answer, Workspace, refused, signed_in

FUNCTION = {"kind": "unity_catalog", "function": "main.shop.status", "warehouse": "w1"}
GENIE = {"kind": "genie", "space": "g1", "rows": 2}
CHAT = {"kind": "serving_endpoint", "endpoint": "chat", "task": "chat", "description": "Ask it."}


@pytest.fixture
def workspace(monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    with signed_in(monkeypatch) as found:
        yield found


__all__ = ["unused_port"]
SERVER = str(Path(__file__).parent / "mcp_tool_server.py")


def configured(*tools: dict[str, Any]) -> AgentConfig:
    return AgentConfig.read({"tools": list(tools)})


def with_function(workspace: Workspace, state: dict[str, Any], **result: Any) -> None:
    parameters = [
        FunctionParameterInfo("order", "string", ColumnTypeName.STRING, position=0, comment="its id"),
        FunctionParameterInfo("n", "int", ColumnTypeName.INT, position=1, parameter_default="3"),
    ]
    info = FunctionInfo(
        name="status",
        comment="The status of an order.",
        data_type=ColumnTypeName.STRING,
        input_params=FunctionParameterInfos(parameters),
    )
    workspace.on("GET", "/api/2.1/unity-catalog/functions/main.shop.status", lambda asked: info.as_dict())
    pending = {"statement_id": "s1", "status": {"state": "PENDING"}}
    workspace.on("POST", "/api/2.0/sql/statements/?", lambda asked: pending)
    workspace.on("GET", "/api/2.0/sql/statements/s1", lambda asked: {"statement_id": "s1", "status": state, **result})


def shipped(workspace: Workspace) -> None:
    columns = {"schema": {"columns": [{"name": "x"}]}}
    with_function(workspace, {"state": "SUCCEEDED"}, manifest=columns, result={"data_array": [["shipped"]]})


def test_a_function_is_run_with_typed_parameters(workspace: Workspace):
    shipped(workspace)
    (tool,) = build_tools(configured(FUNCTION))
    assert (tool.name, tool.desc) == ("status", "The status of an order.")
    assert tool.args["order"]["description"] == "its id"
    assert tool(order="M-7'); DROP TABLE orders; --", n=2) == "shipped"
    (sent,) = workspace.asked("POST", "/api/2.0/sql/statements/?")
    assert sent.body["warehouse_id"] == "w1"
    assert "DROP" not in sent.body["statement"], "an argument is a parameter, never text of the statement"
    assert [(each["name"], each["value"]) for each in sent.body["parameters"]] == [
        *[(sent.body["parameters"][0]["name"], "M-7'); DROP TABLE orders; --")],
        *[(sent.body["parameters"][1]["name"], "2")],
    ]
    assert sent.body.get("on_wait_timeout") in (None, ExecuteStatementRequestOnWaitTimeout.CONTINUE.value)


def test_a_function_that_fails_is_an_error_that_the_agent_reads(workspace: Workspace):
    with_function(workspace, {"state": "FAILED", "error": {"error_code": "BAD", "message": "no such order"}})
    program = oneturn.ReAct("question -> answer", tools=build_tools(configured(FUNCTION)))
    program.set_lm(ScriptedLM(call("status", order="M-7", n=1), finish(answer="I can't tell")))
    found = program(question="Where is M-7?")
    assert found.answer == "I can't tell"
    assert "no such order" in str(found.trajectory)


def test_an_agent_with_a_function_answers_in_a_stream_that_keeps_the_rules(workspace: Workspace):
    shipped(workspace)
    program = oneturn.ReAct("question -> answer", tools=build_tools(configured(FUNCTION)))
    program.set_lm(ScriptedLM(call("status", order="M-7", n=1), finish(answer="It is shipped.")))
    request = {"input": [{"role": "user", "content": "Where is M-7?"}]}
    stream = oneturn.ResponsesAdapter(program).predict_stream(request)
    events = [event.model_dump(exclude_none=True) for event in stream]
    assert not [found for found in check_stream(events) if found.severity is not Severity.note]
    assert [item["output"] for item in items(events, "function_call_output")] == ["shipped"]


def items(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    return [item for item in done if item["type"] == kind]


def test_a_function_that_is_not_there_is_told_before_anything_is_asked(workspace: Workspace):
    missing = refused(404, "FUNCTION_DOES_NOT_EXIST", "Function 'main.shop.status' does not exist.")
    workspace.on("GET", "/api/2.1/unity-catalog/functions/.*", lambda asked: missing)
    with pytest.raises(ConfigError, match=r"main\.shop\.status"):
        build_tools(configured(FUNCTION))


def test_a_genie_space_answers_with_its_words_the_sql_and_the_first_rows(workspace: Workspace):
    place = "/api/2.0/genie/spaces/g1"
    begun = {"message_id": "m", "conversation_id": "c"}
    workspace.on("POST", f"{place}/start-conversation", lambda asked: begun)
    message = {"space_id": "g1", "conversation_id": "c", "content": "q", "message_id": "m", "status": "COMPLETED"}
    query = {"attachment_id": "a", "query": {"query": "SELECT 1", "description": "One."}}
    answered = {**message, "attachments": [query, {"text": {"content": "It is 1."}}]}
    workspace.on("GET", f"{place}/conversations/c/messages/m", lambda asked: answered)
    table = {"schema": {"columns": [{"name": "n"}]}, "total_row_count": 3}
    rows = {"statement_id": "z", "status": {"state": "SUCCEEDED"}, "manifest": table}
    result = {"statement_response": {**rows, "result": {"data_array": [["1"], ["2"], ["3"]]}}}
    workspace.on(
        "GET", f"{place}/conversations/c/messages/m/(attachments/a/query-result|query-result/a)", lambda asked: result
    )
    (tool,) = build_tools(configured(GENIE))
    answer = str(tool(question="How many?"))
    assert all(part in answer for part in ("It is 1.", "SELECT 1", "n", "1", "2"))
    assert "3" not in answer.replace("of 3", ""), "two rows were asked for"


def test_a_chat_endpoint_answers(workspace: Workspace):
    reply = {"choices": [{"message": {"role": "assistant", "content": "hello"}}], "usage": {"prompt_tokens": 2}}
    workspace.on("POST", "/serving-endpoints/chat/completions", lambda asked: Answer(body=reply))
    (tool,) = build_tools(configured(CHAT))
    assert str(tool(question="hi")) == "hello"


def test_the_reasoning_of_a_chat_endpoint_is_not_its_answer(workspace: Workspace):
    reasoning = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}
    parts = [reasoning, {"type": "text", "text": "hello"}]
    reply = {"choices": [{"message": {"role": "assistant", "content": parts}}], "usage": {"prompt_tokens": 2}}
    workspace.on("POST", "/serving-endpoints/chat/completions", lambda asked: Answer(body=reply))
    (tool,) = build_tools(configured(CHAT))
    assert str(tool(question="hi")) == "hello"


def test_a_function_of_a_schema_server_is_granted_by_its_name():
    url = "/api/2.0/mcp/functions/main/support"
    entry = {"kind": "mcp", "url": url, "tools": ["main__support__get__order", "close"]}
    found = [resource.to_dict() for resource in tool_resources(configured(entry).tools)]
    assert found == [
        {"function": [{"name": "main.support.get__order"}]},
        {"function": [{"name": "main.support.close"}]},
    ]


def test_what_the_logged_model_needs_is_listed():
    found = [resource.to_dict() for resource in tool_resources(configured(FUNCTION, GENIE, CHAT).tools)]
    kinds = {kind for resource in found for kind in resource}
    assert kinds == {"function", "sql_warehouse", "genie_space", "serving_endpoint"}


def test_a_function_that_gives_a_table_shows_its_first_rows(workspace: Workspace):
    columns = {"schema": {"columns": [{"name": "order"}, {"name": "status"}]}, "total_row_count": 3}
    rows = [["M-1", "shipped"], ["M-2", None], ["M-3", "lost"]]
    with_function(workspace, {"state": "SUCCEEDED"}, manifest=columns, result={"data_array": rows})
    info = workspace_function("TABLE_TYPE")
    workspace.on("GET", "/api/2.1/unity-catalog/functions/main.shop.status", lambda asked: info)
    (tool,) = build_tools(configured({**FUNCTION, "rows": 2}))
    text = str(tool(order="M"))
    assert all(part in text for part in ("order", "status", "M-1", "shipped", "M-2"))
    assert "M-3" not in text
    (sent,) = workspace.asked("POST", "/api/2.0/sql/statements/?")
    assert sent.body["statement"].startswith("SELECT * FROM `main`.`shop`.`status`(")


def workspace_function(data_type: str) -> dict[str, Any]:
    parameter = FunctionParameterInfo("order", "string", ColumnTypeName.STRING, position=0)
    kind = ColumnTypeName(data_type)
    return FunctionInfo(name="status", data_type=kind, input_params=FunctionParameterInfos([parameter])).as_dict()


def test_a_user_is_answered_by_what_they_may_see(workspace: Workspace):
    workspace.users |= {"token-1": "ann", "token-2": "bob"}
    reply = {"choices": [{"message": {"role": "assistant", "content": "hello"}}], "usage": {"prompt_tokens": 2}}
    workspace.on("POST", "/serving-endpoints/chat/completions", lambda asked: Answer(body=reply))
    (tool,) = build_tools(configured({**CHAT, "credentials": "user"}))
    for token in ("token-1", "token-2"):
        with RunContext(caller=token).active():
            tool(question="hi")
    assert [asked.user for asked in workspace.asked("POST", "/serving-endpoints/chat/completions")] == ["ann", "bob"]


def test_a_users_function_is_described_before_anybody_asks_and_run_for_them_only(workspace: Workspace):
    workspace.users["token-1"] = "ann"
    shipped(workspace)
    (tool,) = build_tools(configured({**FUNCTION, "credentials": "user"}))
    with RunContext(caller="token-1").active():
        assert tool(order="M-7", n=1) == "shipped"
    assert [asked.user for asked in workspace.asked("GET", ".*/functions/.*")] == [OWNER]
    assert {asked.user for asked in workspace.asked("POST", "/api/2.0/sql/statements/?")} == {"ann"}


@pytest.mark.parametrize("credentials", ["agent", "user"])
def test_an_mcp_server_of_the_workspace_gets_the_workspaces_credentials(
    workspace: Workspace, credentials: str, unused_port: int
):
    workspace.users["token-1"] = "ann"
    path = "/api/2.0/mcp/functions/main/shop"
    with real_server(unused_port) as url:
        for method in ("POST", "GET", "DELETE"):
            workspace.on(method, path, lambda asked: passed_on(asked, url))
        (tool,) = build_tools(configured({"kind": "mcp", "url": path, "credentials": credentials, "tools": ["add"]}))
        assert {asked.user for asked in workspace.asked("POST", path)} == {OWNER}, "nobody asks yet"
        workspace.calls.clear()
        with RunContext(caller="token-1").active():
            assert tool(a=1, b=2) == "3"
    assert {asked.user for asked in workspace.asked("POST", path)} == {"ann" if credentials == "user" else OWNER}


@contextmanager
def real_server(port: int) -> Iterator[str]:
    process = subprocess.Popen([sys.executable, SERVER, str(port)], stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.1):
                break
            assert process.poll() is None
            select.select([], [], [], 0.05)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        process.wait()


def passed_on(asked: Any, url: str) -> Answer:
    names = ("accept", "content-type", "mcp-session-id", "mcp-protocol-version")
    headers = {name: asked.headers[name] for name in names if name in asked.headers}
    if asked.method == "GET":  # the stream of what the server says by itself: none here
        return refused(405, "METHOD_NOT_ALLOWED", "No stream.")
    content = None if asked.body is None else json.dumps(asked.body).encode()
    found = httpx.request(asked.method, url, headers=headers, content=content)
    kept = {"Content-Type": found.headers.get("content-type"), "Mcp-Session-Id": found.headers.get("mcp-session-id")}
    return Answer(found.status_code, found.content, {name: value for name, value in kept.items() if value})


def test_a_users_credentials_are_refused_where_there_is_no_user(workspace: Workspace):
    shipped(workspace)
    with pytest.raises(ConfigError, match="needs a calling user"):
        build_tools(configured({**FUNCTION, "credentials": "user"}))[0](order="M-7", n=1)


def answer_with_query(workspace: Workspace, *states: dict[str, Any]) -> str:
    """Ask a Genie space whose query has the given states, one per request, and return the tool's text."""
    place = "/api/2.0/genie/spaces/g1"
    message = {"space_id": "g1", "conversation_id": "c", "content": "q", "message_id": "m", "status": "COMPLETED"}
    query = {"attachment_id": "a", "query": {"query": "SELECT 1", "description": "One."}}
    remaining = list(states)

    def state(asked: Any) -> dict[str, Any]:
        statement = {"statement_id": "z", "status": remaining.pop(0)}
        if statement["status"]["state"] == "SUCCEEDED":
            statement |= {"manifest": {"schema": {"columns": [{"name": "n"}]}}, "result": {"data_array": [["42"]]}}
        return {"statement_response": statement}

    workspace.on("POST", f"{place}/start-conversation", lambda asked: {"message_id": "m", "conversation_id": "c"})
    workspace.on("GET", f"{place}/conversations/c/messages/m", lambda asked: {**message, "attachments": [query]})
    workspace.on("GET", f"{place}/conversations/c/messages/m/(attachments/a/query-result|query-result/a)", state)
    (tool,) = build_tools(configured(GENIE))
    return str(tool(question="How many?"))


def test_a_pending_result_of_genie_is_polled(workspace: Workspace):
    assert "42" in answer_with_query(workspace, {"state": "PENDING"}, {"state": "RUNNING"}, {"state": "SUCCEEDED"})


def test_a_failed_result_of_genie_is_an_error(workspace: Workspace):
    failed = {"state": "FAILED", "error": {"message": "The warehouse is stopped."}}
    with pytest.raises(ToolError, match="The warehouse is stopped"):
        answer_with_query(workspace, failed)
