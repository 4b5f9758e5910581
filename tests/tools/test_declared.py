"""What is declared of a tool holds in any module, not only in our own ReAct."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dspy
import pytest

import oneturn
from oneturn.core.steps import Step, ToolProgress, ToolResult
from oneturn.errors import ProgramError, ToolError
from oneturn.programs import as_program
from oneturn.programs.react.module import approving_calls
from oneturn.testing import ScriptedLM, call, finish, sections
from oneturn.tools.execution import run_tools
from oneturn.tools.registry import toolset
from tests.tools.test_runs import calls, wait_until_cancelled

PATIENCE = 30  # seconds until a test gives up


class Calling(dspy.Module):
    """A user's own module: it calls one tool, and answers with what came back."""

    signature = "question -> answer"

    def __init__(self, tool: Any):
        super().__init__()
        self.act = tool

    def forward(self, question: str) -> dspy.Prediction:
        try:
            answer = self.act(euros=300)
        except oneturn.ToolError as refused:
            answer = f"failed: {refused}"
        return dspy.Prediction(answer=answer)


def react_script(tool: str, **args: Any) -> tuple[str, ...]:
    ended = sections(next_thought="enough", next_tool_name="finish", next_tool_args={})
    return (
        sections(next_thought="I do it", next_tool_name=tool, next_tool_args=args),
        ended,
        sections(reasoning="so", answer="There."),
    )


def results(steps: list[Step]) -> list[ToolResult]:
    return [step for step in steps if isinstance(step, ToolResult)]


def test_a_module_s_tool_that_takes_too_long_has_failed_and_is_told_to_stop():
    stopped = threading.Event()

    def slow(euros: int) -> str:
        """Take for ever."""
        if wait_until_cancelled():
            stopped.set()
        return "too late"

    program = dspy.ReAct("question -> answer", tools=[oneturn.tool(slow, timeout=0.01)], max_iters=3)
    program.set_lm(ScriptedLM(*react_script("slow", euros=3)))
    (result,) = results(list(as_program(program).steps(question="?")))
    assert (result.output, result.is_error) == ("Error: the tool exceeded its timeout of 0.01 s", True)
    assert stopped.wait(PATIENCE)


def test_a_module_s_tool_in_time_gives_its_result_and_tells_its_progress():
    def count(euros: int) -> str:
        """Count."""
        oneturn.progress("counting")
        return f"{euros} counted"

    steps = list(as_program(Calling(oneturn.tool(count, timeout=PATIENCE))).steps(question="?"))
    assert [step.output for step in results(steps)] == ["300 counted"]
    assert [step.message for step in steps if isinstance(step, ToolProgress)] == ["counting"]


def test_a_module_that_can_t_wait_for_a_person_is_refused_with_such_a_tool():
    def refund(euros: int) -> str:
        """Give money back."""
        return "paid"

    program = dspy.ReAct("question -> answer", tools=[oneturn.tool(refund, approval=True)])
    with pytest.raises(ProgramError, match="'refund' of ReAct needs human approval, which ReAct doesn't support"):
        oneturn.ResponsesAdapter(program).load_context(None)


def test_a_tool_that_nobody_could_see_is_not_called_without_the_approval_it_needs():
    paid: list[int] = []

    def refund(euros: int) -> str:
        """Give money back."""
        paid.append(euros)
        return "paid"

    def answer_of(tool: dspy.Tool) -> str:
        return str(Calling(tool)(question="?").answer)

    assert "needs a person's approval" in answer_of(oneturn.tool(refund, approval=True))
    assert "needs a person's approval" in answer_of(oneturn.tool(refund, approval=lambda euros: euros > 100))
    assert paid == []
    assert answer_of(oneturn.tool(refund, approval=lambda euros: euros > 500)) == "paid"
    assert oneturn.tool(refund, approval=True)(euros=1) == "paid", "called by its own author, it is a function"


def test_the_threads_of_a_module_are_no_person():
    paid: list[int] = []

    @oneturn.tool(approval=True)
    def refund(euros: int) -> str:
        """Give money back."""
        paid.append(euros)
        return "paid"

    class Pooled(dspy.Module):
        def forward(self, question: str) -> dspy.Prediction:
            with ThreadPoolExecutor(1) as pool:
                call = pool.submit(refund, euros=5)
            return dspy.Prediction(answer=str(call.exception()))

    assert "needs a person's approval" in Pooled()(question="?").answer
    assert paid == []


def test_a_refusal_in_a_thread_of_ones_own_says_what_to_do():
    refund = oneturn.tool(lambda euros: f"paid {euros}", approval=True)
    with ThreadPoolExecutor(1, "web") as pool:
        error = pool.submit(refund, euros=1).exception()
    assert isinstance(error, ToolError)
    assert "can't be requested in the thread 'web_0'" in str(error)
    assert "Call it in the main thread" in str(error)


def test_a_tool_that_our_react_calls_does_not_answer_for_those_that_it_calls_itself():
    inner = oneturn.tool(lambda euros: "paid", approval=True)

    def outer() -> str:
        """Call a module that wants to pay."""
        return str(Calling(inner)(question="?").answer)

    (result,) = results(list(run_tools(toolset([outer]), calls("outer"))))
    assert "needs a person's approval" in result.output


@pytest.mark.parametrize("ours", [True, False])
def test_a_silent_run_shows_that_it_is_alive(ours: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("oneturn.core.background.KEEP_ALIVE", 0.01)
    go_on = threading.Event()

    def reply(asked: Any) -> Any:
        assert go_on.wait(PATIENCE)
        return {"tool_call": {"name": "finish", "args": {"answer": "Yes."}}} if ours else sections(answer="Yes.")

    made: Any = oneturn.ReAct("question -> answer", tools=[]) if ours else dspy.Predict("question -> answer")
    made.set_lm(ScriptedLM(reply))
    stream = oneturn.ResponsesAdapter(made).predict_stream({"input": [{"role": "user", "content": "?"}]})
    seen = []
    for event in stream:
        seen.append(event.type)
        if seen == ["response.created", "response.in_progress", "response.in_progress"]:
            go_on.set()
    assert seen[-1] == "response.completed"


def _purge(dry_run: bool | None = True) -> str:
    """Delete everything."""
    return f"purged, dry_run={dry_run}"


def _pay(account: int | None = None) -> str:
    """Pay."""
    return f"paid from {account}"


def _send(order, external=True) -> str:  # type: ignore[no-untyped-def]
    """Send."""
    return f"sent, external={external}"


CONVERTED = [
    (_purge, lambda dry_run=True: not dry_run, {"dry_run": "false"}, {"dry_run": False}),
    (_purge, lambda dry_run=True: not dry_run, {"dry_run": 0}, {"dry_run": False}),
    (_pay, lambda account=None: account == 7, {"account": "7"}, {"account": 7}),
]


@pytest.mark.parametrize(("function", "approval", "written", "meant"), CONVERTED)
def test_a_predicate_decides_about_the_arguments_that_the_tool_runs_with(
    function: Any, approval: Any, written: dict[str, Any], meant: dict[str, Any]
):
    tool = oneturn.tool(function, approval=approval)
    name = str(tool.name)
    program = oneturn.ReAct("question -> answer", tools=[tool], tool_calling="text")
    program.set_lm(ScriptedLM(call(name, **written), finish(answer="?"), response_schema=False))
    asked: list[Any] = []

    def refuse(waiting: Any) -> bool:
        asked.append(dict(waiting.args))
        return False

    with approving_calls(refuse):
        prediction = program(question="?")
    assert asked == [meant]
    assert [turn.tool_call.args for turn in prediction.trajectory] == [meant]
    assert not any("purged" in turn.observation or "paid" in turn.observation for turn in prediction.trajectory)


def test_a_null_for_an_argument_that_takes_none_is_its_default_for_the_predicate():
    tool = oneturn.tool(_send, approval=lambda order, external=True: external)
    program = oneturn.ReAct("question -> answer", tools=[tool], tool_calling="text")
    program.set_lm(ScriptedLM(call("_send", order=1, external=None), finish(answer="?"), response_schema=False))
    asked: list[Any] = []
    with approving_calls(lambda waiting: bool(asked.append(waiting))):
        program(question="?")
    assert len(asked) == 1
