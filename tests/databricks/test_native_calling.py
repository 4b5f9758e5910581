"""Function calling on Databricks, against an endpoint that refuses what Databricks documents as refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import dspy
import pydantic
import pytest

import oneturn
from oneturn.config import LMConfig
from oneturn.core.steps import Answer
from oneturn.lm import build_lm, capabilities
from tests.databricks.chat_rules import MAX_FUNCTIONS, refusing, replying
from tests.databricks.test_databricks_lm import CHAT
from tests.databricks.workspace import Call, Workspace, refused, signed_in
from tests.programs.react.chat_stub import call_of, calls

ROOT = Path(__file__).resolve().parents[2]
STREAMING = pytest.mark.parametrize("streaming", [False, True])


@pytest.fixture
def workspace(monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    monkeypatch.setattr(capabilities, "_refused", set())
    with signed_in(monkeypatch) as fake:
        yield fake


def bodies(workspace: Workspace) -> list[dict[str, Any]]:
    return [call.body for call in workspace.asked("POST", CHAT)]


# ---- the repository's own agent, as configs/prod.yaml has it

THINKING = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "A price.", "signature": "signed"}]}
TEXT = {"type": "text", "text": "I'll look it up."}
SEARCH = call_of("search_handbook", {"query": "price of a Brevio"}, id="toolu_1")
ORDER = call_of("lookup_order", {"order_id": "M-1045"}, id="toolu_2")


@pytest.fixture
def agent(workspace: Workspace) -> oneturn.Agent:
    return oneturn.load_agent(ROOT / "agent.py", ROOT / "configs" / "prod.yaml")


@STREAMING
def test_the_agent_of_prod_yaml_calls_functions_of_claude(agent: oneturn.Agent, workspace: Workspace, streaming: bool):
    def done(call: Call) -> Any:
        source = json.dumps(call.body["messages"][-2]["content"]).split("[")[1].split("]")[0]
        outputs = {"answer": "It costs what the handbook says.", "citations": [source], "answerable": True}
        return replying(calls(("finish", outputs)))(call)

    first = {"content": [THINKING, TEXT], "tool_calls": [SEARCH, ORDER]}
    answers = iter([replying(first), done])
    workspace.on("POST", CHAT, refusing(lambda call: next(answers)(call)))
    program = agent.program()
    program.set_lm(build_lm(agent.config.lm))
    question = "What does a Brevio cost, and where is order M-1045?"
    if streaming:
        steps = list(program.steps(question=question))
        prediction = next(step.prediction for step in steps if isinstance(step, Answer))
    else:
        prediction = program(question=question)
    assert prediction.answer == "It costs what the handbook says."
    assert prediction.citations == ["start-plan", "M-1045"], "the cited one, and the order that the question names"
    asked, answered = bodies(workspace)
    assert asked["model"] == "databricks-claude-sonnet-4"
    assert [tool["function"]["name"] for tool in asked["tools"]] == [
        "search_handbook",
        "lookup_order",
        "calculate",
        "finish",
    ]
    assert asked["tool_choice"] == "required"
    assert "response_format" not in asked
    assert json.dumps(answered["messages"]).startswith(json.dumps(asked["messages"])[:-1])
    assert (answered["tools"], answered["tool_choice"]) == (asked["tools"], asked["tool_choice"])
    calling, *results = answered["messages"][-3:]
    assert calling["content"] == [THINKING, TEXT], "signed thinking goes back, and the text as the step's thought"
    assert [result["tool_call_id"] for result in results] == [call["id"] for call in calling["tool_calls"]]


def test_its_way_is_shown(agent: oneturn.Agent):
    assert agent.program().tool_calling_with(build_lm(agent.config.lm)) == "native"


# ---- schemas, choices and limits


class Item(pydantic.BaseModel):
    name: str
    size: Literal["s", "m"] | None = None
    parts: list[Item] = []


def order(
    items: list[Item],
    either: int | str,
    pair: tuple[int, str],
    code: str | None = None,
    extra: dict[str, Any] | None = None,
) -> str:
    """Order items."""
    return f"{len(items)} ordered"


class Outcome(pydantic.BaseModel):
    total: float | None = None
    kind: Literal["a", "b"] = "a"
    lines: dict[str, int] = {}


Outcomes = dspy.Signature("question -> answer, outcome: Outcome | None", custom_types={"Outcome": Outcome})
ORDERED = ("order", {"items": [{"name": "x"}], "either": 1, "pair": [1, "a"]})
FINISHED = ("finish", {"answer": "done", "outcome": {"total": 4, "lines": {"x": 1}}})


def run(workspace: Workspace, program: oneturn.ReAct, streaming: bool, endpoint: str = "databricks-claude") -> Any:
    program.set_lm(build_lm(LMConfig(model=f"databricks/{endpoint}", cache=False)))
    if not streaming:
        return program(question="?")
    return next(step.prediction for step in program.steps(question="?") if isinstance(step, Answer))


@STREAMING
def test_unions_references_and_patterns_arent_sent(workspace: Workspace, streaming: bool):
    workspace.on("POST", CHAT, refusing(replying(calls(ORDERED), calls(FINISHED))))
    prediction = run(workspace, oneturn.ReAct(Outcomes, tools=[order]), streaming)
    assert prediction.outcome == Outcome(total=4, lines={"x": 1})
    assert len(bodies(workspace)) == 2, "nothing was refused"


@STREAMING
def test_a_demo_a_repair_and_the_last_step_keep_the_rules(workspace: Workspace, streaming: bool):
    wrong = ("finish", {"answer": "done", "outcome": "many"})
    workspace.on("POST", CHAT, refusing(replying({"content": "Hm."}, calls(ORDERED), calls(wrong), calls(FINISHED))))
    program = oneturn.ReAct(Outcomes, tools=[order], max_iters=4)
    program.step.demos = [dspy.Example(question="a", answer="b", outcome=None).with_inputs("question")]
    assert run(workspace, program, streaming).answer == "done"
    assert bodies(workspace)[-1]["tool_choice"] == {"type": "function", "function": {"name": "finish"}}
    assert len(bodies(workspace)) == 4


@STREAMING
def test_a_refused_choice_is_auto_from_then_on(workspace: Workspace, streaming: bool):
    def thinking(call: Call) -> Any:
        if call.body.get("tool_choice") == "auto":
            return None
        return refused(400, "BAD_REQUEST", "Thinking may not be enabled when tool_choice forces tool use.")

    workspace.on("POST", CHAT, refusing(replying(calls(ORDERED), calls(FINISHED)), also=thinking))
    assert run(workspace, oneturn.ReAct(Outcomes, tools=[order]), streaming).answer == "done"
    assert [body["tool_choice"] for body in bodies(workspace)] == ["required", "auto", "auto"]


@STREAMING
def test_more_functions_than_databricks_takes_are_described_in_the_prompt(workspace: Workspace, streaming: bool):
    def tool(number: int) -> dspy.Tool:
        return dspy.Tool(lambda: "done", name=f"tool_{number}", desc=f"Do {number}.", args={})

    step = {"content": json.dumps({"tool_call": {"name": "finish", "args": {"answer": "done"}}})}
    workspace.on("POST", CHAT, refusing(replying(step)))
    program = oneturn.ReAct("question -> answer", tools=[tool(number) for number in range(MAX_FUNCTIONS)])
    assert run(workspace, program, streaming).answer == "done"
    assert "tools" not in bodies(workspace)[-1]
    assert "tool_31" in bodies(workspace)[-1]["messages"][0]["content"]


@STREAMING
@pytest.mark.parametrize("way", ["schema", "text"])
def test_other_ways_end_with_a_request_that_is_taken(workspace: Workspace, way: str, streaming: bool):
    step = {"content": json.dumps({"tool_call": {"name": FINISHED[0], "args": FINISHED[1]}})}
    workspace.on("POST", CHAT, refusing(replying(step)))
    program = oneturn.ReAct(Outcomes, tools=[order], tool_calling=way)
    assert run(workspace, program, streaming, "databricks-qwen3").answer == "done"
    sent = bodies(workspace)[-1]
    assert sent["response_format"]["type"] == "json_object"
