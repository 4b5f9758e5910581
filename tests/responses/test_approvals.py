"""Tool approval: requested in one response, answered in the next request, on any replica."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dspy
import httpx
import pytest
from mlflow.entities import Document

import oneturn
from oneturn.config import ApprovalsConfig
from oneturn.core.run_context import RunContext
from oneturn.core.steps import ApprovalWanted, WaitingCall
from oneturn.errors import ConfigError, RequestError, RunError
from oneturn.testing import ScriptedLM, call, finish
from oneturn.tools.approvals import Approvals, build_approvals
from oneturn.tools.ledger import DatabaseLedger, MemoryLedger

KEY = "0123456789abcdef" * 2
QUESTION = {"role": "user", "content": "Refund order 7, please."}


class Ask(dspy.Signature):
    """Help the customer."""

    question: str = dspy.InputField()
    tone: str = dspy.InputField(default="plain")
    answer: str = dspy.OutputField()
    citations: list[oneturn.Citation] = dspy.OutputField()


class Shop:
    """The tools, with a record of their calls."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def look_up(self, order: int) -> list[Document]:
        """Look an order up."""
        self.done.append(f"look_up {order}")
        return [Document(f"Order {order} cost 30 euros.", {"title": "Order", "doc_uri": f"orders/{order}"}, id="o7")]

    def refund(self, order: int, euros: int) -> str:
        """Give money back."""
        self.done.append(f"refund {order} {euros}")
        return "refunded"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def replica(shop: Shop, *replies: Any, approval: Any = True, **options: Any) -> oneturn.ResponsesAdapter:
    """One process that serves the agent; replicas share only the key and the ledger."""
    tools = [shop.look_up, oneturn.tool(shop.refund, approval=approval)]
    program = oneturn.ReAct(Ask, tools=tools)
    program.set_lm(ScriptedLM(*replies))
    return oneturn.ResponsesAdapter(program, approvals=Approvals(**{"key": KEY, **options}))


ASKING = (call("look_up", "first look", order=7), call("refund", "now pay", order=7, euros=30))
GRANTED = (finish("done", answer="You got 30 euros back.", citations=["o7"]),)


def ask(agent: oneturn.ResponsesAdapter, items: list[Any], **fields: Any) -> list[dict[str, Any]]:
    return [event.model_dump() for event in agent.predict_stream({"input": items, **fields})]


def items_of(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return events[-1]["response"]["output"]


def answer_to(items: list[dict[str, Any]], approve: bool = True, **fields: Any) -> dict[str, Any]:
    (wanted,) = [item for item in items if item["type"] == "mcp_approval_request"]
    return {"type": "mcp_approval_response", "approval_request_id": wanted["id"], "approve": approve, **fields}


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def first_turn(shop: Shop) -> list[dict[str, Any]]:
    """The output items of the first turn, after a round trip through JSON."""
    events = ask(replica(shop, *ASKING), [QUESTION])
    assert events[-1]["type"] == "response.completed"
    return json.loads(json.dumps(items_of(events)))


def test_a_turn_ends_with_the_approval_request_and_without_the_call(shop: Shop, first_turn: list[dict[str, Any]]):
    kinds = ["reasoning", "function_call", "function_call_output", "reasoning", "mcp_approval_request"]
    assert [item["type"] for item in first_turn] == kinds
    assert (first_turn[-1]["name"], json.loads(first_turn[-1]["arguments"])) == ("refund", {"order": 7, "euros": 30})
    assert shop.done == ["look_up 7"]


def test_another_replica_resumes_and_runs_only_the_approved_call(shop: Shop, first_turn: list[dict[str, Any]]):
    agent = replica(shop, *GRANTED)
    events = ask(agent, [QUESTION, *first_turn, answer_to(first_turn)])
    kinds = ["function_call", "function_call_output", "reasoning", "message"]
    assert [item["type"] for item in items_of(events)] == kinds
    assert shop.done == ["look_up 7", "refund 7 30"]
    (request,) = agent.program.step.lm.requests
    assert [message["content"] for message in request.messages[2:]] == [
        '{"thought": "first look", "tool_call": {"name": "look_up", "args": {"order": 7}}}',
        "[o7] Order 7 cost 30 euros.",
        '{"thought": "now pay", "tool_call": {"name": "refund", "args": {"order": 7, "euros": 30}}}',
        "refunded",
    ]


def test_documents_from_before_the_approval_can_be_cited(shop: Shop, first_turn: list[dict[str, Any]]):
    (*_, message) = items_of(ask(replica(shop, *GRANTED), [QUESTION, *first_turn, answer_to(first_turn)]))
    (annotation,) = message["content"][0]["annotations"]
    assert (annotation["title"], annotation["url"]) == ("Order", "orders/7")


def test_a_refusal_and_its_reason_reach_the_lm(shop: Shop, first_turn: list[dict[str, Any]]):
    agent = replica(shop, finish(answer="I may not.", citations=[]))
    events = ask(agent, [QUESTION, *first_turn, answer_to(first_turn, approve=False, reason="too much")])
    assert shop.done == ["look_up 7"]
    assert agent.program.step.lm.requests[0].messages[-1]["content"] == "Error: a person refused this call: too much"
    assert events[-1]["type"] == "response.completed"


def test_the_output_by_which_the_ai_sdk_repeats_a_refusal_is_ignored(shop: Shop, first_turn: list[dict[str, Any]]):
    denial = {"type": "function_call_output", "call_id": "sKDCBQQcgCCZUKs7", "output": "Tool call execution denied."}
    agent = replica(shop, finish(answer="I may not.", citations=[]))
    events = ask(agent, [QUESTION, *first_turn, answer_to(first_turn, approve=False), denial])
    assert events[-1]["type"] == "response.completed"
    assert agent.program.step.lm.requests[0].messages[-1]["content"] == "Error: a person refused this call"
    assert shop.done == ["look_up 7"]
    for others in (
        [answer_to(first_turn), denial],  # nothing was refused
        [answer_to(first_turn, approve=False), {**denial, "call_id": first_turn[1]["call_id"]}],  # answers a call
        [answer_to(first_turn, approve=False), first_turn[-1], denial],
    ):
        assert ask(replica(shop), [QUESTION, *first_turn, *others])[-2]["type"] == "error"


def test_a_second_approval_in_the_same_turn(shop: Shop, first_turn: list[dict[str, Any]]):
    again = call("refund", "and more", order=8, euros=5)
    first = [*first_turn, answer_to(first_turn)]
    second = json.loads(json.dumps(items_of(ask(replica(shop, again), [QUESTION, *first]))))
    assert [item["type"] for item in second][-1] == "mcp_approval_request"
    ask(replica(shop, *GRANTED), [QUESTION, *first, *second, answer_to(second)])
    assert shop.done == ["look_up 7", "refund 7 30", "refund 8 5"]


def test_an_approval_of_another_question_is_rejected(shop: Shop, first_turn: list[dict[str, Any]]):
    for other in ({"input": "x"}, {"tone": "rude"}):
        question = {**QUESTION, "content": other.get("input", QUESTION["content"])}
        custom = {"tone": other["tone"]} if "tone" in other else None
        events = ask(replica(shop), [question, *first_turn, answer_to(first_turn)], custom_inputs=custom)
        assert "doesn't match" in events[-2]["message"]


def test_a_message_behind_an_approval_is_refused_and_behind_a_refusal_it_is_the_question(
    shop: Shop, first_turn: list[dict[str, Any]]
):
    new = {"role": "user", "content": "What about order 8?"}
    approved = ask(replica(shop), [QUESTION, *first_turn, answer_to(first_turn), new])
    assert "the approved call would not be run" in approved[-2]["message"]
    for other in (
        {"role": "system", "content": "Be brief."},
        {"role": "assistant", "content": "Done."},
        first_turn[-1],
        {"type": "reasoning", "id": "rs_1", "summary": []},
    ):
        events = ask(replica(shop), [QUESTION, *first_turn, answer_to(first_turn), other])
        assert "the approved call would not be run" in events[-2]["message"]
    agent = replica(shop, finish(answer="It is open.", citations=[]))
    refused = ask(agent, [QUESTION, *first_turn, answer_to(first_turn, approve=False), new])
    assert refused[-1]["type"] == "response.completed"
    assert "order 8" in str(agent.program.step.lm.requests[0].messages[-1]["content"])


def test_a_person_sees_the_converted_arguments_which_run_as_they_are(shop: Shop):
    written, done = call("refund", order="7", euros="300"), finish(answer="Done.", citations=[])
    asking, granted = (replica(shop, reply, approval=lambda order, euros: euros > 100) for reply in (written, done))
    items = json.loads(json.dumps(items_of(ask(asking, [QUESTION]))))
    assert json.loads(items[-1]["arguments"]) == {"order": 7, "euros": 300}
    assert shop.done == []
    assert ask(granted, [QUESTION, *items, answer_to(items)])[-1]["type"] != "error"
    assert shop.done == ["refund 7 300"]


@pytest.mark.parametrize(
    "args", [{}, {"order": 7}, {"order": "seven", "euros": 5}, {"order": 7, "euros": 5, "hidden": 1}], ids=str
)
def test_nobody_is_asked_about_a_call_that_can_not_be_run(shop: Shop, args: dict[str, Any]):
    refund = {"name": "refund", "args": args}
    agent = replica(shop, call("look_up", order=7), {"tool_call": refund}, finish(answer="No.", citations=[]))
    events = ask(agent, [QUESTION])
    assert events[-1]["type"] == "response.completed"
    assert [item["type"] for item in items_of(events)].count("mcp_approval_request") == 0
    assert shop.done == ["look_up 7"]
    assert "Error: " in str(agent.program.step.lm.requests[-1].messages[-1]["content"])


def test_two_answers_to_one_request_are_rejected(shop: Shop, first_turn: list[dict[str, Any]]):
    answers = [answer_to(first_turn, approve=False), answer_to(first_turn)]
    events = ask(replica(shop), [QUESTION, *first_turn, *answers])
    assert "twice; send one answer" in events[-2]["message"]
    assert shop.done == ["look_up 7"]


def test_an_approval_without_its_request_is_rejected(shop: Shop, first_turn: list[dict[str, Any]]):
    answer = {**answer_to(first_turn), "approval_request_id": "mcpr_other"}
    (error,) = [e for e in ask(replica(shop), [QUESTION, *first_turn, answer]) if e["type"] == "error"]
    assert error["message"] == "The input has no approval request 'mcpr_other'; send all output items back unchanged."


def test_a_signature_with_another_key_is_rejected(shop: Shop, first_turn: list[dict[str, Any]]):
    events = ask(replica(shop, key="fedcba9876543210" * 2), [QUESTION, *first_turn, answer_to(first_turn)])
    assert "doesn't match" in events[-2]["message"]


def test_an_approval_expires(shop: Shop):
    clock = Clock()
    items = items_of(ask(replica(shop, *ASKING, clock=clock, seconds=60), [QUESTION]))
    clock.now += 61
    events = ask(replica(shop, clock=clock), [QUESTION, *items, answer_to(items)])
    assert events[-2]["message"] == "The approval request has expired. Send the question again."


@pytest.mark.parametrize("shared", ["memory", "database"])
def test_an_approval_is_valid_once_across_replicas(
    shared: str, shop: Shop, first_turn: list[dict[str, Any]], tmp_path: Path
):
    memory = MemoryLedger()

    def ledger() -> Any:
        return memory if shared == "memory" else DatabaseLedger(f"sqlite:///{tmp_path / 'approvals.db'}")

    items = [QUESTION, *first_turn, answer_to(first_turn)]
    assert ask(replica(shop, *GRANTED, ledger=ledger()), items)[-1]["type"] == "response.completed"
    again = ask(replica(shop, ledger=ledger()), items)
    assert again[-2]["message"] == "The approval request was answered before. Send the question again."
    assert shop.done.count("refund 7 30") == 1


def test_a_run_that_was_stopped_before_it_began_leaves_the_approval_valid(shop: Shop, first_turn: list[dict[str, Any]]):
    ledger = MemoryLedger()
    items = [QUESTION, *first_turn, answer_to(first_turn)]
    stopped = RunContext()
    stopped.cancel("shutting_down")
    with stopped.active():
        assert ask(replica(shop, ledger=ledger), items)[-1]["type"] == "response.incomplete"
    assert shop.done.count("refund 7 30") == 0
    assert ask(replica(shop, *GRANTED, ledger=ledger), items)[-1]["type"] == "response.completed"
    assert shop.done.count("refund 7 30") == 1


@pytest.mark.parametrize(("euros", "waits"), [(30, False), (300, True)])
def test_a_predicate_decides_which_calls_need_approval(euros: int, waits: bool, shop: Shop):
    script = [call("refund", order=7, euros=euros), *([] if waits else [finish(answer="x", citations=[])])]
    events = ask(replica(shop, *script, approval=lambda order, euros: euros > 100), [QUESTION])
    assert [item["type"] for item in items_of(events)][-1] == ("mcp_approval_request" if waits else "message")


def test_a_failing_predicate_requires_approval(shop: Shop):
    events = ask(replica(shop, ASKING[1], approval=lambda **args: args["nothing"]), [QUESTION])
    assert items_of(events)[-1]["type"] == "mcp_approval_request"


def test_calling_the_program_directly_fails_and_keeps_the_trajectory(shop: Shop):
    program = replica(shop, *ASKING).program
    with pytest.raises(RunError, match="refund needs a person's approval") as failed:
        program(question="Refund?")
    assert failed.value.code == "approval_required"
    assert [done.tool_call.name for done in failed.value.trajectory] == ["look_up"]


def test_an_adapter_without_a_key_fails(shop: Shop):
    agent = oneturn.ResponsesAdapter(replica(shop, ASKING[1]).program)
    (error,) = [event for event in ask(agent, [QUESTION]) if event["type"] == "error"]
    assert error["code"] == "server_error"


def test_steps_end_with_approval_wanted_and_usage(shop: Shop):
    *_, wanted, usage = replica(shop, *ASKING).program.steps(question="Refund?")
    assert isinstance(wanted, ApprovalWanted)
    assert usage.lm_calls == 2


# ---- configuration


def test_the_key_is_read_when_something_is_signed(monkeypatch: pytest.MonkeyPatch, shop: Shop):
    assert build_approvals(ApprovalsConfig()) is None
    approvals = build_approvals(ApprovalsConfig(key_env="APPROVAL_KEY"))
    assert approvals is not None
    assert approvals.missing_key_env == "APPROVAL_KEY"
    with pytest.raises(ConfigError, match=r"APPROVAL_KEY \(approvals.key_env\) isn't set"):
        approvals.open()
    monkeypatch.setenv("APPROVAL_KEY", "short")
    with pytest.raises(ConfigError, match=r"in APPROVAL_KEY \(approvals.key_env\) has 5 characters"):
        approvals.open()
    monkeypatch.setenv("APPROVAL_KEY", KEY)
    approvals.open()
    program = replica(shop, *ASKING).program
    items = items_of(ask(oneturn.ResponsesAdapter(program, approvals=approvals), [QUESTION]))
    assert items[-1]["type"] == "mcp_approval_request"


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("0123456789" * 3, "has 30 characters, 10 of them different"),
        ("k" * 32, "has 32 characters, 1 of them different"),
        ("012345678" * 4, "has 36 characters, 9 of them different"),
        ("", "has 0 characters"),
    ],
)
def test_a_weak_key_is_refused(key: str, problem: str):
    with pytest.raises(ConfigError, match=f"{problem}.*it needs 32 or more, 10 of them different"):
        Approvals(key)


def test_there_is_one_key():
    for keys in ({}, {"key": KEY, "key_env": "APPROVAL_KEY"}):
        with pytest.raises(ConfigError, match="either a key, or key_env"):
            Approvals(**keys)


def test_the_ledger_s_address_is_read_when_an_approval_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("APPROVAL_KEY", KEY)
    approvals = build_approvals(ApprovalsConfig(key_env="APPROVAL_KEY", ledger_env="APPROVAL_LEDGER"))
    assert approvals is not None
    call = WaitingCall("refund", {})
    verified = approvals.verify(approvals.request_id({}, [], call), {}, [], call)
    with pytest.raises(ConfigError, match=r"APPROVAL_LEDGER \(approvals.ledger_env\) isn't set"):
        approvals.spend(verified)
    monkeypatch.setenv("APPROVAL_LEDGER", "postgresql+nothing://me:hunter2@db/agent")
    with pytest.raises(ConfigError, match=r"The database in APPROVAL_LEDGER .* can't be opened") as refused:
        approvals.open()
    assert "hunter2" not in str(refused.value)
    monkeypatch.setenv("APPROVAL_LEDGER", f"sqlite:///{tmp_path / 'approvals.db'}")
    approvals.spend(verified)
    with pytest.raises(RequestError, match="answered before"):
        approvals.spend(verified)
    assert (tmp_path / "approvals.db").is_file()


@pytest.mark.parametrize("shared", ["memory", "database"])
def test_a_replica_whose_clock_is_ahead_does_not_forget_used_approvals(shared: str, tmp_path: Path):
    ahead, url = Clock(), f"sqlite:///{tmp_path / 'approvals.db'}"
    memory = MemoryLedger(ahead)
    ledger = memory if shared == "memory" else DatabaseLedger(url, ahead)
    assert ledger.spend("first", 1060)
    ahead.now += 5 * 3600  # beyond the expiry, on this replica
    assert ledger.spend("second", 99_999)
    other = memory if shared == "memory" else DatabaseLedger(url, Clock())
    assert not other.spend("first", 1060), "another replica's clock says that the approval is valid"
    ahead.now += 2 * 3600
    assert ledger.spend("third", 99_999)
    assert ledger.spend("first", 1060), "not kept forever"


VERDICTS = ["false", "true", "yes", "no", "off", "0", "n", "f", "", 0, 1, None, [], {}]


@pytest.mark.parametrize("verdict", VERDICTS, ids=repr)
def test_only_true_and_false_are_verdicts(shop: Shop, first_turn: list[dict[str, Any]], verdict: Any):
    with oneturn.running_server(replica(shop, *GRANTED)) as url:
        answer = httpx.post(
            f"{url}/responses", json={"input": [QUESTION, *first_turn, answer_to(first_turn, approve=verdict)]}
        )
    assert answer.status_code == 400
    assert "send JSON true or false" in answer.text
    assert shop.done == ["look_up 7"], "the tool isn't run"


@pytest.mark.parametrize("verdict", ["false", "true", "yes", "no", "off", "0", "n", "f", 0, 1], ids=repr)
def test_only_true_and_false_are_verdicts_in_the_process(shop: Shop, first_turn: list[dict[str, Any]], verdict: Any):
    events = ask(replica(shop, *GRANTED), [QUESTION, *first_turn, answer_to(first_turn, approve=verdict)])
    assert events[-1]["type"] == "response.failed"
    assert "send JSON true or false" in events[-2]["message"]
    assert shop.done == ["look_up 7"], "the tool isn't run"


def test_a_missing_verdict_is_rejected(shop: Shop, first_turn: list[dict[str, Any]]):
    answer = answer_to(first_turn)
    del answer["approve"]
    with oneturn.running_server(replica(shop, *GRANTED)) as url:
        refused = httpx.post(f"{url}/responses", json={"input": [QUESTION, *first_turn, answer]})
    assert refused.status_code == 400
    assert shop.done == ["look_up 7"]
