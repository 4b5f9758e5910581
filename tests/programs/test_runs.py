"""A run of a module among others: it is left, it is traced, it is counted, and it never mixes with another."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import dspy
import mlflow
import pytest
from dspy import lm15
from dspy.dsp.utils.settings import thread_local_overrides
from dspy.lm15 import Message, Request, Response, ToolCallPart, response_to_events
from dspy.utils.callback import BaseCallback
from mlflow.entities import SpanType

import oneturn
from oneturn.core.run_context import RunContext
from oneturn.core.steps import Answer, AnswerDelta, Thought, ToolCall, ToolProgress, ToolResult
from oneturn.core.usage import Usage
from oneturn.errors import RunCancelled
from oneturn.programs import as_program
from oneturn.testing import ScriptedLM, ScriptedRequest, sections
from tests.gated_engine import GatedEngine


def look_up(item: str) -> str:
    """Look up the price of an item."""
    return f"{item} costs 4 euros"


def answer_of(steps: list[Any]) -> str:
    last = max((step.attempt for step in steps if isinstance(step, AnswerDelta)), default=0)
    return "".join(step.text for step in steps if isinstance(step, AnswerDelta) and step.attempt == last)


REACT = dspy.ReAct("question -> answer", tools=[look_up])
SCRIPT = (
    sections(next_thought="see the list", next_tool_name="look_up", next_tool_args={"item": "tea"}),
    sections(next_thought="it's there", next_tool_name="finish", next_tool_args={}),
    sections(reasoning="as the list says", answer="4 euros"),
)


# ---- leaving early


class Stubborn(dspy.Module):
    """Asks again whatever happens."""

    signature = "question -> answer"

    def __init__(self) -> None:
        super().__init__()
        self.respond = dspy.Predict("question -> answer")
        self.tool = dspy.Tool(look_up)
        self.over = threading.Event()
        self.tools_called = 0

    def forward(self, question: str) -> dspy.Prediction:
        try:
            for _ in range(3):
                try:
                    return self.respond(question=question)
                except Exception:
                    self.tools_called += bool(self.tool(item="tea"))
            raise AssertionError("three times")
        finally:
            self.over.set()


def test_a_reader_who_leaves_stops_the_lm_and_the_module():
    engine = GatedEngine("[[ ## answer ## ]]\na")
    module = Stubborn()
    with dspy.context(lm=dspy.LM("gated/lm", engine=engine, cache=False)):
        steps = as_program(module).steps(question="?")
        assert next(steps) == AnswerDelta("a")
        steps.close()
    engine.go_on.set()
    assert engine.closed.wait(30)
    assert module.over.wait(30)
    assert (engine.requests, engine.written, module.tools_called) == (1, 1, 0)


class Thinking(dspy.Module):
    """Calls a tool, then asks an LM for something that isn't the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.tool = dspy.Tool(look_up)
        self.think = dspy.Predict("question -> idea")

    def forward(self, question: str) -> dspy.Prediction:
        self.tool(item="tea")
        return self.think(question=question)


def test_a_reader_who_leaves_stops_an_lm_that_is_not_told():
    engine = GatedEngine("[[ ## idea ## ]]\na")
    with dspy.context(lm=dspy.LM("gated/lm", engine=engine, cache=False)):
        steps = as_program(Thinking(), "question -> answer").steps(question="?")
        assert [type(next(steps)) for _ in range(2)] == [ToolCall, ToolResult]
        assert engine.begun.wait(30)
        steps.close()
    engine.go_on.set()
    assert engine.closed.wait(30)
    assert (engine.requests, engine.written) == (1, 1)


class Waiting(dspy.Module):
    """Calls a tool that waits, then does what it is given."""

    signature = "question -> answer"

    def __init__(self, then: str) -> None:
        super().__init__()
        self.go_on, self.over = threading.Event(), threading.Event()
        self.first, self.second = dspy.Tool(self.wait), dspy.Tool(look_up)
        self.respond = dspy.Predict("question -> answer")
        self.then = then
        self.reached = False

    def wait(self) -> str:
        """Wait."""
        assert self.go_on.wait(30)
        return "waited"

    def forward(self, question: str) -> dspy.Prediction:
        try:
            self.first()
            self.reached = True
            if self.then == "tool":
                self.second(item="tea")
            return self.respond(question=question)
        finally:
            self.over.set()


@pytest.mark.parametrize("then", ["tool", "lm"])
def test_after_a_reader_has_left_nothing_more_is_begun(then: str):
    module = Waiting(then)
    began: list[str] = []

    class Listener(BaseCallback):
        def on_tool_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
            began.append(instance.name)

        def on_tool_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
            began.append("end")

        def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
            began.append("lm")

    with ScriptedLM() as lm, dspy.context(lm=lm, callbacks=[Listener()]):
        steps = as_program(module).steps(question="?")
        assert isinstance(next(steps), ToolCall)
        steps.close()
        module.go_on.set()
        assert module.over.wait(30)
    assert module.reached
    assert began == ["wait", "end"]


class Reporting(dspy.Module):
    """Calls a tool that tells how it gets on, and waits for the end of it all."""

    signature = "question -> answer"

    def __init__(self, parallel: bool) -> None:
        super().__init__()
        self.parallel = parallel
        self.tool = dspy.Tool(self.work)
        self.stopped, self.left = threading.Event(), threading.Event()

    def work(self) -> str:
        """Work."""
        oneturn.progress("half of it", 0.5)
        assert self.left.wait(30)
        if oneturn.cancelled():
            self.stopped.set()
        return "done"

    def forward(self, question: str) -> str:
        if self.parallel:
            return str(dspy.Parallel(num_threads=2, disable_progress_bar=True)([(self.tool, {})])[0])
        return str(self.tool())


@pytest.mark.parametrize("parallel", [False, True])
def test_a_tool_tells_its_progress_and_learns_that_its_reader_has_left(parallel: bool):
    module = Reporting(parallel)
    steps = as_program(module).steps(question="?")
    call, progress = next(steps), next(steps)
    assert progress == ToolProgress(call.call_id, "work", "half of it", 0.5)
    steps.close()
    module.left.set()
    assert module.stopped.wait(30)


def test_a_run_that_is_cancelled_ends_so():
    module = Reporting(parallel=False)
    control = RunContext()
    with control.active():
        steps = as_program(module).steps(question="?")
        assert [type(next(steps)) for _ in range(2)] == [ToolCall, ToolProgress]
        control.cancel("shutting_down")
        with pytest.raises(RunCancelled, match="shutting_down"):
            next(steps)
    module.left.set()
    assert module.stopped.wait(30)


def test_a_run_that_nobody_reads_does_nothing():
    with ScriptedLM() as lm, dspy.context(lm=lm):
        as_program(REACT).steps(question="?")


# ---- what surrounds a run


def test_the_caller_s_context_reaches_the_run_and_stays_as_it_was():
    heard: list[str] = []

    class Listener(BaseCallback):
        def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
            heard.append(instance.model)

    with ScriptedLM(*SCRIPT) as lm, dspy.context(lm=lm, callbacks=[Listener()]), dspy.track_usage() as usage:
        before = dict(thread_local_overrides.get())
        steps = list(as_program(REACT).steps(question="?"))
        assert dict(thread_local_overrides.get()) == before
    assert heard == ["scripted/lm"] * 3
    assert Usage.from_dspy({**usage.get_total_tokens()["scripted/lm"], "lm_calls": 3}) == steps[-1]
    assert dspy.settings.callbacks == []
    assert dspy.settings.trace == []


def test_a_prediction_knows_its_cost_where_dspy_tracks_it():
    with ScriptedLM(*SCRIPT) as lm, dspy.context(lm=lm, track_usage=True):
        steps = list(as_program(REACT).steps(question="?"))
    (answer,) = (step for step in steps if isinstance(step, Answer))
    assert Usage.from_dspy({**answer.prediction.get_lm_usage()["scripted/lm"], "lm_calls": 3}) == steps[-1]


def test_a_predictor_s_own_lm_is_streamed_too():
    module = dspy.ChainOfThought("question -> answer")
    program = as_program(module)
    with ScriptedLM(sections(reasoning="so", answer="4 euros")) as lm:
        module.set_lm(lm)
        steps = list(program.steps(question="?"))
    assert answer_of(steps) == "4 euros"
    assert sum(isinstance(step, AnswerDelta) for step in steps) > 1


def test_an_lm_that_cannot_stream_is_called_as_it_is():
    lm = dspy.utils.DummyLM([{"answer": "4 euros"}])
    with dspy.context(lm=lm):
        steps = list(as_program(dspy.Predict("question -> answer")).steps(question="?"))
    assert steps[0] == AnswerDelta("4 euros")


# ---- traces


class Failing(dspy.Module):
    signature = "question -> answer"

    def __init__(self) -> None:
        super().__init__()
        self.tool = dspy.Tool(self.fail)

    def fail(self) -> str:
        """Fail."""
        raise ValueError("broken")

    def forward(self, question: str) -> str:
        with pytest.raises(ValueError, match="broken"):
            self.tool()
        return "anyway"


def spans_of(module: dspy.Module, *replies: Any) -> list[tuple[str, str, str, str]]:
    """Each span of a traced run: its name, its type, its parent's name and its status."""
    with mlflow.start_span("request") as request, ScriptedLM(*replies) as lm, dspy.context(lm=lm):
        list(as_program(module).steps(question="?"))
    trace = mlflow.get_trace(request.trace_id)
    names = {span.span_id: span.name for span in trace.data.spans}
    below = [span for span in trace.data.spans if span.parent_id is not None]
    return [(span.name, span.span_type, names[span.parent_id], span.status.status_code) for span in below]


def test_a_traced_run_has_spans_of_its_lm_calls_and_tools(traced: None):
    asked = ("scripted/lm", SpanType.CHAT_MODEL, "request", "OK")
    assert spans_of(REACT, *SCRIPT) == [asked, ("look_up", SpanType.TOOL, "request", "OK"), asked, asked]


def test_what_a_tool_asks_stands_below_the_tool(traced: None):
    expert = dspy.Predict("question -> answer")

    def ask(item: str) -> str:
        """Ask."""
        return str(expert(question=item).answer)

    module = dspy.ReActV2("question -> answer", tools=[dspy.Tool(ask, name="look_up")])
    call = {"tool_calls": [{"name": "look_up", "args": {"item": "tea"}}]}
    submit = {"tool_calls": [{"name": "submit", "args": {"answer": "4"}}]}
    script = [sections(next_thought="", tool_calls=made) for made in (call, submit)]
    spans = spans_of(module, script[0], sections(answer="4"), script[1])
    assert [(name, parent) for name, _, parent, _ in spans] == [
        ("scripted/lm", "request"),
        ("look_up", "request"),
        ("scripted/lm", "look_up"),
        ("scripted/lm", "request"),
    ]


def test_spans_of_parallel_threads_stand_where_they_belong(traced: None):
    expert = dspy.Predict("item -> answer")

    def ask(item: str) -> str:
        """Ask."""
        made = dspy.Parallel(num_threads=2, disable_progress_bar=True)([(expert, {"item": item})] * 2)
        return " ".join(answer.answer for answer in made)

    class Spread(dspy.Module):
        signature = "question -> answer"

        def __init__(self) -> None:
            super().__init__()
            self.ask = dspy.Tool(ask)
            self.fail = dspy.Tool(Failing().fail)

        def forward(self, question: str) -> str:
            calls = [(self.ask, {"item": question}), (self.fail, {})]
            found = dspy.Parallel(num_threads=2, disable_progress_bar=True, max_errors=9).forward(calls)
            return str(found[0])

    spans = spans_of(Spread(), sections(answer="4"), sections(answer="4"))
    assert sorted(spans) == [
        ("ask", SpanType.TOOL, "request", "OK"),
        ("fail", SpanType.TOOL, "request", "ERROR"),
        ("scripted/lm", SpanType.CHAT_MODEL, "ask", "OK"),
        ("scripted/lm", SpanType.CHAT_MODEL, "ask", "OK"),
    ]


def test_a_failure_is_marked_in_its_span(traced: None):
    assert spans_of(Failing()) == [("fail", SpanType.TOOL, "request", "ERROR")]


def test_a_oneturn_react_inside_is_not_traced_twice(traced: None):
    from oneturn.testing import call, finish

    class Outer(dspy.Module):
        signature = "question -> answer"

        def __init__(self) -> None:
            super().__init__()
            self.agent = oneturn.ReAct("question -> answer", tools=[look_up])

        def forward(self, question: str) -> dspy.Prediction:
            return self.agent(question=question)

    spans = spans_of(Outer(), call("look_up", item="tea"), finish(answer="4"))
    assert [name for name, *_ in spans] == ["scripted/lm", "look_up", "scripted/lm"]


def test_autologged_runs_are_not_traced_twice(traced: None):
    mlflow.dspy.autolog()
    try:
        spans = spans_of(REACT, *SCRIPT)
    finally:
        mlflow.dspy.autolog(disable=True)
    assert [span_type for _, span_type, _, _ in spans].count(SpanType.TOOL) == 1
    assert [span_type for _, span_type, _, _ in spans].count(SpanType.CHAT_MODEL) == 3


def test_a_run_outside_a_trace_writes_none(traced: None):
    before = len(mlflow.search_traces(return_type="list", flush=True))
    with ScriptedLM(*SCRIPT) as lm, dspy.context(lm=lm):
        list(as_program(REACT).steps(question="?"))
    assert len(mlflow.search_traces(return_type="list", flush=True)) == before


# ---- native tool calls


class NativeEngine:
    """An LM with tool calls of its own: looks tea up, then submits; its arguments come in pieces of three letters."""

    supports_function_calling = True
    supports_response_schema = True
    supports_reasoning = True
    supported_params = frozenset({"tools", "tool_choice", "response_format", "reasoning_effort"})

    def __init__(self) -> None:
        self.parts = iter(
            [
                ToolCallPart(id="1", name="look_up", input={"item": "tea"}),
                ToolCallPart(id="2", name="submit", input={"answer": "Tea costs 4 euros."}),
            ]
        )

    def complete(self, request: Request) -> Response:
        raise AssertionError("this LM streams")

    def stream(self, request: Request) -> Iterator[Any]:
        assert [tool.name for tool in request.tools] == ["look_up", "submit"]
        message = Message.assistant(next(self.parts))
        response = Response(None, request.model, message, "tool_call", lm15.Usage(input_tokens=1, output_tokens=1))
        for event in response_to_events(response):
            if event.type != "delta":
                yield event
                continue
            whole = event.delta.input
            for start in range(0, len(whole), 3):
                piece = replace(event.delta, input=whole[start : start + 3])
                yield replace(event, delta=piece if start == 0 else replace(piece, id=None, name=None))


def test_an_answer_is_streamed_out_of_a_native_tool_call():
    module = dspy.ReActV2("question -> answer", tools=[look_up])
    with dspy.context(lm=dspy.LM("native/lm", engine=NativeEngine(), cache=False), adapter=dspy.JSONAdapter()):
        steps = list(as_program(module).steps(question="?"))
    assert [step.name for step in steps if isinstance(step, ToolCall)] == ["look_up"]
    assert answer_of(steps) == "Tea costs 4 euros."
    assert sum(isinstance(step, AnswerDelta) for step in steps) > 2


# ---- many at once


def respond(request: ScriptedRequest) -> str:
    """Plays a ``dspy.ReAct``: what it says depends on nothing but what it is asked."""
    asked = request.messages[-1]["content"]
    marker = asked.split("[[ ## question ## ]]\n")[1].split("\n")[0]
    if "next_tool_name" not in request.messages[0]["content"]:
        return sections(reasoning=f"sure of {marker}", answer=f"The price of {marker} is 4 euros.")
    if "observation_0" in asked:
        return sections(next_thought=f"got {marker}", next_tool_name="finish", next_tool_args={})
    return sections(next_thought=f"want {marker}", next_tool_name="look_up", next_tool_args={"item": marker})


def test_many_runs_of_one_program_do_not_mix():
    program = as_program(REACT)
    markers = [f"item-{number:02d}" for number in range(16)]
    with ScriptedLM(*[respond] * 48, piece=3) as lm, ThreadPoolExecutor(16) as pool:
        together = threading.Barrier(16)

        def run(marker: str) -> list[Any]:
            together.wait(30)
            with dspy.context(lm=lm):
                return list(program.steps(question=marker))

        runs = list(pool.map(run, markers))
    for marker, steps in zip(markers, runs, strict=True):
        assert answer_of(steps) == f"The price of {marker} is 4 euros."
        assert [step.text for step in steps if isinstance(step, Thought)] == [
            f"{t} {marker}" for t in ("want", "got", "sure of")
        ]
        assert [step.output for step in steps if isinstance(step, ToolResult)] == [f"{marker} costs 4 euros"]
        assert {other for other in markers if other in repr(steps)} == {marker}
        assert steps[-1].lm_calls == 3
