"""How replies of real LMs end a run: cut, filtered, refused, cached, of another type; and repeated calls."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import datetime
import enum
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dspy
import pydantic
import pytest
from dspy.lm15 import Message, RefusalPart, Request, Response, TextPart, Usage, response_to_events

import oneturn
from oneturn import ReAct
from oneturn.core._dspy import replaced_cache
from oneturn.core.steps import Answer
from oneturn.errors import ProgramError, RunError
from oneturn.programs.state import Manifest, save_compiled
from oneturn.programs.state.interface import interface_of
from oneturn.testing import ScriptedLM, call, finish


def search(query: str) -> str:
    """Search the handbook."""
    return f"The fee is 4 euros ({query})."


class EndingEngine:
    """Answers once, with a given finish reason or a refusal."""

    supports_response_schema = True
    supported_params = frozenset({"response_format"})

    def __init__(self, text: str, finish_reason: str, refusal: str | None = None):
        self.calls = 0
        part = TextPart(text) if refusal is None else RefusalPart(text=refusal)
        usage = Usage(input_tokens=7, output_tokens=3, total_tokens=10)
        self.response = Response(
            id=None, model="x", message=Message.assistant(part), finish_reason=finish_reason, usage=usage
        )

    def complete(self, request: Request) -> Response:
        self.calls += 1
        return dataclasses.replace(self.response, model=request.model)

    def stream(self, request: Request) -> Iterator[Any]:
        yield from response_to_events(self.complete(request))


def ending(text: str, finish_reason: str, refusal: str | None = None) -> dspy.LM:
    engine = EndingEngine(text, finish_reason, refusal)
    return dspy.LM("openai/x", engine=engine, cache=False, num_retries=0)


CUT = json.dumps(finish(answer="It is 4 euros, as the handbook says."))[:-20]


@pytest.mark.parametrize("streaming", [True, False])
def test_a_cut_answer_is_incomplete(streaming: bool):
    program = ReAct("question -> answer", tools=[search])
    program.set_lm(ending(CUT, "length"))
    agent = oneturn.ResponsesAdapter(program)
    request: Any = {"input": [{"role": "user", "content": "?"}]}
    if streaming:
        response = [event.model_dump() for event in agent.predict_stream(request)][-1]["response"]
    else:
        response = agent.predict(request).model_dump()
    assert (response["status"], response["incomplete_details"]["reason"]) == ("incomplete", "max_output_tokens")
    message = response["output"][-1]
    assert message["status"] == "incomplete"
    assert "It is 4 euros, as the handbook says.".startswith(message["content"][0]["text"])
    assert message["content"][0]["text"].startswith("It is 4")


def test_a_complete_reply_at_the_limit_counts():
    program = ReAct("question -> answer", tools=[])
    program.set_lm(ending(json.dumps(finish(answer="ok")), "length"))
    assert program(question="?").answer == "ok"


@pytest.mark.parametrize(
    ("lm", "code", "message"),
    [
        (ending(CUT, "length"), "max_output_tokens", "cut at its token limit; raise max_tokens"),
        (ending(" ", "content_filter"), "content_filter", "content filter"),
        (ending("", "stop", "I can't help with that."), "refusal", "refused to answer: I can't help with that."),
    ],
)
def test_a_reply_that_ended_early_ends_the_run_at_once(lm: dspy.LM, code: str, message: str):
    program = ReAct("question -> answer", tools=[search])
    program.set_lm(lm)
    with pytest.raises(RunError, match=message) as error:
        program(question="?")
    assert error.value.code == code
    assert "stronger LM" not in str(error.value)
    assert lm.engine.calls == 1


def test_a_cut_reply_is_counted():
    program = ReAct("question -> answer", tools=[search])
    program.set_lm(ending(CUT, "length"))
    with oneturn.core.usage.track_usage() as tracker, pytest.raises(RunError):
        program(question="?")
    assert tracker.usage.output_tokens == 3


LOOK, MORE = call("search", query="a"), call("search", query="b")


@pytest.mark.parametrize("disk", [False, True])
@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    "failing",
    [
        [LOOK, "Sorry."],
        [LOOK, MORE],
        [finish(answer="x", n="many"), finish(answer="x", n="many")],
        ["Sorry.", "Sorry."],
    ],
    ids=["unreadable", "max_iters", "outputs", "unreadable from the start"],
)
def test_a_run_that_failed_is_not_answered_from_the_cache_again(
    failing: list[Any], streaming: bool, disk: bool, tmp_path: Path
):
    def ask() -> int:
        if not streaming:
            return int(program(question="?").n)
        return next(step.prediction.n for step in program.steps(question="?") if isinstance(step, Answer))

    with replaced_cache(memory=True):
        dspy.configure_cache(enable_disk_cache=disk, enable_memory_cache=not disk, disk_cache_dir=str(tmp_path))
        lm = ScriptedLM(*failing, LOOK, finish(answer="x", n=1), cache=True)
        program = ReAct("question -> answer, n: int", tools=[search], max_iters=2)
        program.set_lm(lm)
        with pytest.raises(RunError):
            ask()
        assert ask() == 1
        assert ask() == 1, "from the cache: nothing is left in the script"


def test_a_fenced_answer_is_streamed():
    program = ReAct("question -> answer", tools=[search])
    program.set_lm(ScriptedLM(f"Here: [1]\n```json\n{json.dumps(finish(answer='It is 4 euros.'))}\n```"))
    deltas = [step.text for step in program.steps(question="?") if isinstance(step, oneturn.core.steps.AnswerDelta)]
    assert len(deltas) > 1
    assert "".join(deltas) == "It is 4 euros."


def test_the_prompt_of_a_step_begins_with_that_of_the_step_before():
    program = ReAct("question -> answer", tools=[search])
    with ScriptedLM(call("search", query="a"), call("search", query="b"), finish(answer="x")) as lm:
        program.set_lm(lm)
        program(question="?")
    prompts = [json.dumps([dict(message) for message in request.messages])[:-1] for request in lm.requests]
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(prompts))


# ---- outputs


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Price(pydantic.BaseModel):
    amount: float


@pytest.mark.parametrize(
    ("spec", "args", "expected"),
    [
        ("note: str | None", {}, {"note": None}),
        ("code: str", {"code": 5}, {"code": "5"}),
        ("code: str | None", {"code": 5}, {"code": "5"}),
        ("tags: str", {"tags": ["a", "b"]}, {"tags": '["a", "b"]'}),
        ("color: Color", {"color": "RED"}, {"color": Color.RED}),
        ("price: Price", {"price": '{"amount": 4}'}, {"price": Price(amount=4)}),
        ("prices: list[Price]", {"prices": '[{"amount": 4}]'}, {"prices": [Price(amount=4)]}),
        ("count: int", {"count": "5"}, {"count": 5}),
    ],
)
def test_outputs_are_converted_as_dspy_does(spec: str, args: dict[str, Any], expected: dict[str, Any]):
    signature = dspy.Signature(f"question -> answer, {spec}", custom_types={"Color": Color, "Price": Price})
    program = ReAct(signature, tools=[])
    program.set_lm(ScriptedLM(finish(answer="ok", **args)))
    prediction = program(question="?")
    assert {name: prediction[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("spec", "args"),
    [("code: str", {"code": None}), ("code: str", {}), ("n: int", {"n": "many"}), ("p: Price", {"p": 4})],
)
def test_what_comes_out_has_the_declared_type(spec: str, args: dict[str, Any]):
    signature = dspy.Signature(f"question -> answer, {spec}", custom_types={"Price": Price})
    program = ReAct(signature, tools=[])
    program.set_lm(ScriptedLM(*[finish(answer="ok", **args)] * 2))
    with pytest.raises(RunError, match="don't fit the signature"):
        program(question="?")


def test_an_optional_text_can_be_the_answer():
    assert ReAct("question -> answer: str | None", tools=[]).answer_field == "answer"
    assert ReAct("question -> note: str | None, answer", tools=[]).answer_field == "answer"


@pytest.mark.parametrize("name", ["config", "demos", "instance", "lm", "new_signature", "self"])
def test_a_name_that_dspy_reserves_is_refused_when_the_agent_is_built(name: str):
    with pytest.raises(ProgramError, match=f"field named '{name}'"):
        ReAct(f"question, {name} -> answer", tools=[])
    with pytest.raises(ProgramError, match=f"field named '{name}'"):
        oneturn.ResponsesAdapter(dspy.Predict(f"question, {name} -> answer"))


# ---- repeated calls


def results(program: ReAct, *replies: Any) -> list[str]:
    with ScriptedLM(*replies, finish(answer="x")) as lm:
        program.set_lm(lm)
        return [turn.observation for turn in program(question="?").trajectory]


def test_a_failed_call_may_be_made_again():
    attempts: list[str] = []

    def flaky(q: str) -> str:
        """Look it up."""
        attempts.append(q)
        if len(attempts) == 1:
            raise TimeoutError
        return "4 euros"

    program = ReAct("question -> answer", tools=[flaky])
    assert results(program, call("flaky", q="x"), call("flaky", q="x"))[-1] == "4 euros"


def test_a_call_that_keeps_failing_is_made_three_times():
    attempts: list[str] = []

    def broken(q: str) -> str:
        """Look it up."""
        attempts.append(q)
        raise TimeoutError

    results(ReAct("question -> answer", tools=[broken]), *[call("broken", q="x")] * 4)
    assert len(attempts) == 3


def test_a_repeatable_tool_may_be_polled():
    states = iter(["queued", "running", "running", "done"])

    @oneturn.tool(repeatable=True)
    def status(job: str) -> str:
        """Status of a job."""
        return next(states)

    program = ReAct("question -> answer", tools=[status])
    assert results(program, *[call("status", job="7")] * 4) == ["queued", "running", "running", "done"]


def test_a_call_may_be_repeated_after_another_tool_changed_something():
    box = ["open"]

    def status(order: str) -> str:
        """Status of an order."""
        return box[0]

    def cancel(order: str) -> str:
        """Cancel an order."""
        box[0] = "cancelled"
        return "done"

    program = ReAct("question -> answer", tools=[status, cancel])
    steps = [call("status", order="7"), call("cancel", order="7"), call("status", order="7")]
    assert results(program, *steps) == ["open", "done", "cancelled"]


# ---- async, media, history

USER: contextvars.ContextVar[str] = contextvars.ContextVar("user")


def test_acall_runs_the_same_loop_in_the_callers_context():
    async def look(q: str) -> str:
        """Look it up."""
        await asyncio.sleep(0)
        return f"{q} for {USER.get()}"

    async def ask(user: str) -> Any:
        USER.set(user)
        with dspy.context(lm=ScriptedLM(call("look", q="x"), finish(answer=user))):
            return await program.acall(question="?")

    async def main() -> list[Any]:
        return list(await asyncio.gather(ask("a"), ask("b")))

    program = ReAct("question -> answer", tools=[look])
    predictions = asyncio.run(main())
    assert [each.answer for each in predictions] == ["a", "b"]
    assert [each.trajectory[0].observation for each in predictions] == ["x for a", "x for b"]


def test_acall_logs_no_warning_about_forward(monkeypatch: pytest.MonkeyPatch):
    warnings: list[str] = []
    monkeypatch.setattr(dspy.primitives.module.logger, "warning", lambda message, *args: warnings.append(message))
    program = ReAct("question -> answer", tools=[])
    program.set_lm(ScriptedLM(finish(answer="a")))
    assert asyncio.run(program.acall(question="?")).answer == "a"
    assert warnings == []


def test_an_image_reaches_the_lm_and_a_short_text_the_client():
    def shot() -> list[Any]:
        """Take a screenshot."""
        return ["The page:", dspy.Image("data:image/png;base64,iVBORw0KGgo=")]

    program = ReAct("question -> answer", tools=[shot])
    lm = ScriptedLM(call("shot"), finish(answer="x"))
    program.set_lm(lm)
    seen: list[Any] = []
    original = lm.engine.complete
    lm.engine.complete = lambda request: (seen.append(request), original(request))[1]
    steps = list(program.steps(question="?"))
    result = next(step for step in steps if isinstance(step, oneturn.core.steps.ToolResult))
    assert result.output == "The page:\n[image]"
    assert [part.type for part in seen[-1].messages[-1].parts] == ["text", "image"]
    assert program.step.demos == []
    turn = next(step for step in steps if isinstance(step, oneturn.core.steps.Answer)).prediction.trajectory[0]
    assert "base64" not in turn.model_dump_json()


@pytest.mark.parametrize("form", [dict, list, dspy.History])
def test_a_history_is_read_in_any_form(form: Any):
    exchanges = [{"question": "EARLIER", "answer": "b", "trajectory": [], "reasoning": "because"}]
    history = {dict: {"messages": exchanges}, list: exchanges, dspy.History: dspy.History(messages=exchanges)}[form]
    program = ReAct("question, history: dspy.History -> answer", tools=[])
    program.set_lm(lm := ScriptedLM(finish(answer="x")))
    program(question="now", history=history)
    assert "EARLIER" in lm.requests[0].text
    assert "because" not in lm.requests[0].text


def test_a_demo_with_a_date_and_a_history_is_saved(tmp_path: Path):
    program = ReAct("day: datetime.date -> answer", tools=[])
    program.step.demos = [dspy.Example(day=datetime.date(2026, 1, 2), answer="x")]
    path = tmp_path / "program.json"
    manifest = Manifest(
        recipe="r",
        lm="x/y",
        seed=0,
        created="2026-01-01T00:00:00+00:00",
        versions={},
        dataset={},
        scores={},
        spend={},
        interface=interface_of(program),
    )
    save_compiled(program, manifest, path)
    assert "2026-01-02" in path.read_text()
