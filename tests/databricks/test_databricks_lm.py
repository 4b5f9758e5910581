"""An LM behind a serving endpoint: the real SDK, DSPy and databricks-dspy over HTTP, against the fake workspace."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import databricks_dspy
import dspy
import pytest
from dspy.utils.exceptions import (
    ContextWindowExceededError,
    LMAuthError,
    LMConfigurationError,
    LMNotConfiguredError,
    LMRateLimitError,
)

import oneturn
from oneturn.config import AgentConfig, LMConfig
from oneturn.core.run_context import RunContext
from oneturn.core.steps import AnswerDelta, Thought
from oneturn.deployment.resources import resources_of, scopes_of
from oneturn.errors import AgentError, ConfigError
from oneturn.lm import build_lm, capabilities
from tests.databricks.workspace import OWNER, TOKEN, Answer, Call, Workspace, refused, signed_in

CHAT = "/serving-endpoints/chat/completions"
USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
FINISH = json.dumps({"tool_call": {"name": "finish", "args": {"answer": "It is in the attic."}}})


@pytest.fixture
def workspace(monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    with signed_in(monkeypatch) as fake:
        monkeypatch.setattr(capabilities, "_refused", set())
        yield fake


def saying(text: str, check: Callable[[Call], Any] = lambda call: None) -> Callable[[Call], Any]:
    """An endpoint that answers each request with ``text``; streams are in chunks of three characters."""

    def answer(call: Call) -> Any:
        if (refusal := check(call)) is not None:
            return refusal
        envelope = {"id": "c", "created": 0, "model": call.body["model"]}
        if not call.body.get("stream"):
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            return {**envelope, "object": "chat.completion", "choices": [choice], "usage": USAGE}
        return Answer(body=chunks(envelope, text), headers={"Content-Type": "text/event-stream"})

    return answer


def chunks(envelope: dict[str, Any], text: str) -> Iterator[bytes]:
    kind = {**envelope, "object": "chat.completion.chunk"}
    for start in range(0, len(text), 3):
        delta = {"role": "assistant", "content": text[start : start + 3]}
        yield f"data: {json.dumps({**kind, 'choices': [{'index': 0, 'delta': delta}]})}\n\n".encode()
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": USAGE}
    yield f"data: {json.dumps({**kind, **last})}\n\n".encode()
    yield b"data: [DONE]\n\n"


def lm_of(**settings: Any) -> dspy.LM:
    lm = build_lm(LMConfig(model="databricks/claude", **{"cache": False, **settings}))
    assert isinstance(lm, dspy.LM)
    return lm


def users(workspace: Workspace) -> list[str]:
    return [call.user for call in workspace.asked("POST", CHAT)]


def agent_of(**settings: Any) -> oneturn.ReAct:
    program = oneturn.ReAct("question -> answer", tools=[])
    program.set_lm(lm_of(**settings))
    return program


def test_building_saving_and_copying_sends_no_request(monkeypatch: pytest.MonkeyPatch):
    for name in ("DATABRICKS_HOST", "DATABRICKS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with Workspace() as workspace:
        monkeypatch.setenv("DATABRICKS_HOST", workspace.host)
        monkeypatch.setenv("DATABRICKS_TOKEN", "dapi-secret-of-nobody")
        lm = lm_of()
        assert isinstance(lm, databricks_dspy.DatabricksLM)
        program = agent_of()
        copies = [lm.copy(temperature=1.0), copy.deepcopy(lm), pickle.loads(pickle.dumps(lm))]
        assert {(each.model, each.engine.endpoint) for each in copies} == {("databricks/claude", "claude")}
        for text in (repr(lm.__dict__), json.dumps(lm.dump_state()), json.dumps(program.dump_state())):
            assert "dapi-secret" not in text
        assert workspace.calls == []


def test_sync_async_and_streaming_calls_use_the_same_credentials(workspace: Workspace):
    workspace.on("POST", CHAT, saying("[[ ## answer ## ]]\nyes\n\n[[ ## completed ## ]]"))
    program = dspy.Predict("question -> answer")
    program.set_lm(lm_of())
    assert program(question="1").answer == "yes"
    assert asyncio.run(program.acall(question="2")).answer == "yes"

    async def streamed() -> list[Any]:
        return [piece async for piece in dspy.streamify(program, is_async_program=True)(question="3")]

    assert asyncio.run(streamed())[-1].answer == "yes"
    assert users(workspace) == [OWNER] * 3
    assert {call.body["model"] for call in workspace.asked("POST", CHAT)} == {"claude"}
    assert {call.method for call in workspace.calls} == {"POST", "GET"}
    assert workspace.asked("GET", ".*/Me") == [], "the current user is never requested"


def test_text_is_streamed_from_the_endpoint_to_the_client(workspace: Workspace):
    workspace.on("POST", CHAT, saying(FINISH))
    request = {"input": [{"role": "user", "content": "Where is it?"}]}
    events = list(oneturn.ResponsesAdapter(agent_of()).predict_stream(request))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == "It is in the attic."
    assert len(deltas) > 4
    (call,) = workspace.asked("POST", CHAT)
    assert call.body["stream"] is True


def test_tokens_are_counted(workspace: Workspace):
    workspace.on("POST", CHAT, saying(FINISH))
    with dspy.track_usage() as usage:
        agent_of()(question="Where?")
    assert usage.get_total_tokens()["databricks/claude"]["completion_tokens"] == 7


def service_principal(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace.principals["agent-1"] = "s3cret"
    monkeypatch.delenv("DATABRICKS_TOKEN")
    monkeypatch.setenv("DATABRICKS_CLIENT_ID", "agent-1")
    monkeypatch.setenv("DATABRICKS_CLIENT_SECRET", "s3cret")


def test_an_expired_token_is_renewed_within_a_run(workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    service_principal(workspace, monkeypatch)
    workspace.seconds = 1  # too short for the SDK to use it twice
    workspace.on("POST", CHAT, saying("yes"))
    lm = lm_of()
    assert [lm("1")[0], lm("2")[0]] == ["yes", "yes"]
    tokens = [call.headers["authorization"] for call in workspace.asked("POST", CHAT)]
    assert len(set(tokens)) == 2
    assert users(workspace) == ["agent-1", "agent-1"]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_revoked_token_is_renewed_once(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, streaming: bool):
    service_principal(workspace, monkeypatch)
    workspace.on("POST", CHAT, saying(FINISH))
    program = agent_of()
    program(question="first")
    workspace.users.clear()
    if streaming:
        assert list(program.steps(question="second"))[-1]
    else:
        program(question="second")
    assert workspace.issued == 2
    assert users(workspace) == ["agent-1", "agent-1"]


def test_invalid_credentials_are_not_retried(workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DATABRICKS_TOKEN", "dapi-wrong")
    with pytest.raises(LMAuthError, match="CAN QUERY") as failure:
        lm_of()("hello")
    assert "dapi-wrong" not in str(failure.value)
    assert workspace.asked("POST", CHAT) == []


def test_missing_credentials_are_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Any):
    for name in ("DATABRICKS_HOST", "DATABRICKS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(LMNotConfiguredError, match="no credentials for 'claude'"):
        lm_of()("hello")


def test_a_request_for_a_user_carries_the_users_token_and_never_the_agents(workspace: Workspace):
    workspace.on("POST", CHAT, saying(FINISH))
    workspace.users |= {f"token-{number}": f"user-{number}" for number in range(8)}
    program, started = agent_of(credentials="user"), threading.Barrier(8)

    def ask(number: int) -> None:
        with RunContext(caller=f"token-{number}").active():
            started.wait()
            for step in range(3):
                program(question=f"{number} asks {step}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(8)))
    for call in workspace.asked("POST", CHAT):
        assert f"{call.user.removeprefix('user-')} asks" in call.body["messages"][-1]["content"]
    assert len(users(workspace)) == 24


def test_model_serving_passes_the_users_token(workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    workspace.on("POST", CHAT, saying(FINISH))
    workspace.users |= {"token-1": "ann", "token-2": "bob"}
    adapter = oneturn.ResponsesAdapter(agent_of(credentials="user"))
    main = threading.main_thread().__dict__
    monkeypatch.setitem(main, "invokers_token", "token-1")
    stream = adapter.predict_stream({"input": [{"role": "user", "content": "Ann asks"}]})
    next(stream)
    monkeypatch.setitem(main, "invokers_token", "token-2")
    list(adapter.predict_stream({"input": [{"role": "user", "content": "Bob asks"}]}))
    list(stream)
    questions = {call.user: call.body["messages"][-1]["content"] for call in workspace.asked("POST", CHAT)}
    assert questions == {"ann": "question: Ann asks", "bob": "question: Bob asks"}


def test_a_nested_run_uses_the_outer_runs_user(workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    workspace.on("POST", CHAT, saying(FINISH))
    workspace.users |= {"token-1": "ann", "token-2": "bob"}
    inner = oneturn.ResponsesAdapter(agent_of(credentials="user"))
    request = {"input": [{"role": "user", "content": "For Ann"}]}
    monkeypatch.setitem(threading.main_thread().__dict__, "invokers_token", "token-2")
    with RunContext(caller="token-1").active():
        inner.predict(request)
    assert users(workspace) == ["ann"]


def test_a_run_without_a_user_never_gets_a_later_users_token(workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    workspace.on("POST", CHAT, saying(FINISH))
    workspace.users["token-2"] = "bob"
    adapter = oneturn.ResponsesAdapter(agent_of(credentials="user"))
    stream = adapter.predict_stream({"input": [{"role": "user", "content": "x"}]})
    next(stream)
    monkeypatch.setitem(threading.main_thread().__dict__, "invokers_token", "token-2")
    assert list(stream)[-1].type == "response.failed"
    assert workspace.calls == []


def test_an_app_forwards_the_callers_token(workspace: Workspace):
    import httpx

    workspace.on("POST", CHAT, saying(FINISH))
    workspace.users |= {"token-1": "ann", "token-2": "bob"}
    with oneturn.running_server(oneturn.ResponsesAdapter(agent_of(credentials="user"))) as url:
        for token, name in (("token-1", "Ann"), ("token-2", "Bob")):
            body = {"input": [{"role": "user", "content": f"{name} asks"}]}
            answer = httpx.post(f"{url}/responses", json=body, headers={"X-Forwarded-Access-Token": token})
            assert answer.status_code == 200, answer.text
        anonymous = httpx.post(f"{url}/responses", json={"input": [{"role": "user", "content": "x"}]})
    questions = [(call.user, call.body["messages"][-1]["content"]) for call in workspace.asked("POST", CHAT)]
    assert questions == [("ann", "question: Ann asks"), ("bob", "question: Bob asks")]
    assert anonymous.json()["error"]["code"] == "lm_unusable"


def test_user_credentials_require_a_disabled_cache():
    with pytest.raises(ConfigError, match="set cache: false"):
        AgentConfig.read({"lm": {"model": "databricks/claude", "credentials": "user"}})
    with pytest.raises(ConfigError, match="is for databricks/<endpoint>"):
        AgentConfig.read({"lm": {"model": "openai/gpt", "credentials": "user", "cache": False}})


def test_a_renewed_token_reuses_the_cache(workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    service_principal(workspace, monkeypatch)
    workspace.seconds = 1
    workspace.on("POST", CHAT, saying("yes"))
    lm = lm_of(cache=True)
    with dspy.context(disable_history=True):
        assert [lm("the same question of this test"), lm("the same question of this test")] == [["yes"], ["yes"]]
    assert len(users(workspace)) == 1


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (refused(404, "RESOURCE_DOES_NOT_EXIST", "No such."), LMConfigurationError, "no serving endpoint 'claude'"),
        (refused(403, "PERMISSION_DENIED", "No."), LMAuthError, "CAN QUERY"),
        (refused(429, "REQUEST_LIMIT_EXCEEDED", "Too many."), LMRateLimitError, "Too many"),
        (
            refused(400, "BAD_REQUEST", "prompt is too long: context length exceeded"),
            ContextWindowExceededError,
            "too long",
        ),
    ],
)
def test_error_responses_map_to_dspys_errors(workspace: Workspace, answer: Answer, error: type[Exception], text: str):
    workspace.on("POST", CHAT, lambda call: answer)
    with pytest.raises(error, match=text):
        lm_of(kwargs={"num_retries": 0})("hello")


def test_the_agents_client_gets_an_error_code_without_the_host(workspace: Workspace):
    workspace.on("POST", CHAT, lambda call: refused(404, "RESOURCE_DOES_NOT_EXIST", "No such endpoint."))
    adapter = oneturn.ResponsesAdapter(agent_of())
    with pytest.raises(AgentError) as failure:
        adapter.predict({"input": [{"role": "user", "content": "x"}]})
    assert failure.value.code == "lm_unusable"
    assert workspace.host not in str(failure.value)


@pytest.mark.parametrize("streaming", [False, True])
def test_an_endpoint_that_rejects_tools_and_schemas_gets_neither_afterwards(workspace: Workspace, streaming: bool):
    def check(call: Call) -> Any:
        if call.body.get("tools"):
            return refused(400, "BAD_REQUEST", "This endpoint doesn't support tools.")
        if call.body.get("response_format"):
            return refused(400, "BAD_REQUEST", "response_format: anyOf is not supported.")
        return None

    workspace.on("POST", CHAT, saying(FINISH, check))
    program = agent_of()
    for number in range(2):
        if streaming:
            list(program.steps(question=f"{number}?"))
        else:
            assert program(question=f"{number}?").answer == "It is in the attic."
    bodies = [call.body for call in workspace.asked("POST", CHAT)]
    formats = ["tools" if "tools" in body else body.get("response_format", {}).get("type") for body in bodies]
    assert formats == ["tools", "json_schema", "json_object", None, None]


THINKING = [
    {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Where was it?"}]},
    {"type": "text", "text": "It is in the attic."},
]


@pytest.mark.parametrize("streaming", [False, True])
def test_the_parts_of_a_thinking_models_reply_are_reasoning_and_answer(workspace: Workspace, streaming: bool):
    def answer(call: Call) -> Any:
        envelope = {"id": "c", "created": 0, "model": call.body["model"]}
        if not call.body.get("stream"):
            message = {"role": "assistant", "content": THINKING}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return {**envelope, "object": "chat.completion", "choices": [choice], "usage": USAGE}
        deltas = [{"role": "assistant", "content": [part]} for part in THINKING]
        pieces = [{**envelope, "choices": [{"index": 0, "delta": delta}]} for delta in deltas]
        pieces.append({**envelope, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        lines = [f"data: {json.dumps(piece)}\n\n".encode() for piece in pieces]
        return Answer(body=iter([*lines, b"data: [DONE]\n\n"]), headers={"Content-Type": "text/event-stream"})

    workspace.on("POST", CHAT, answer)
    program = agent_of()
    if not streaming:
        assert program(question="?").answer == "It is in the attic."
        return
    steps = list(program.steps(question="?"))
    assert [step.text for step in steps if isinstance(step, Thought)] == ["Where was it?"]
    assert "".join(step.text for step in steps if isinstance(step, AnswerDelta)) == "It is in the attic."


def test_an_unreachable_workspace_fails_quickly(monkeypatch: pytest.MonkeyPatch, unused_port: int):
    from oneturn.core import databricks_auth as credentials

    monkeypatch.setattr(credentials, "_SECONDS", 1)
    monkeypatch.setenv("DATABRICKS_HOST", f"http://127.0.0.1:{unused_port}")
    monkeypatch.setenv("DATABRICKS_TOKEN", TOKEN)
    with pytest.raises(dspy.utils.exceptions.LMTransportError):
        lm_of(kwargs={"num_retries": 0})("hello")


def test_the_lms_resources_and_scopes():
    own = AgentConfig.read({"lm": {"model": "databricks/claude"}})
    users = AgentConfig.read({"lm": {"model": "databricks/claude", "credentials": "user", "cache": False}})
    assert ([each.name for each in resources_of(own)], scopes_of(own)) == (["claude"], [])
    assert (resources_of(users), scopes_of(users)) == ([], ["serving.serving-endpoints"])
    more = AgentConfig.read({"deploy": {"scopes": ["model-serving"]}})
    assert scopes_of(more) == ["model-serving"]
