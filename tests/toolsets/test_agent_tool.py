"""An agent as a tool of another: what it takes and gives, what is seen of it, and how it is stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import dspy
import mlflow
import pydantic
import pytest
from dspy.utils.exceptions import LMRateLimitError
from mlflow.entities import Document, SpanType

import oneturn
from oneturn.conformance import Severity, check_stream
from oneturn.core.run_context import RunContext
from oneturn.core.steps import Answer, AnswerDelta, Step, ToolCall, ToolProgress, ToolResult
from oneturn.core.usage import Usage
from oneturn.errors import ProgramError, RunCancelled
from oneturn.programs import ChatCompletionsProgram, as_program
from oneturn.testing import ScriptedLM, ScriptedRequest, call, finish, sections
from oneturn.toolsets._nested_run import MAX_DEPTH

PATIENCE = 30  # seconds until a test gives up

FEES = Document("A late book costs 4 euros.", {"title": "Fees", "doc_uri": "handbook/fees.md"}, "fees")
HOURS = Document("Open at nine.", {"title": "Hours"}, "hours")


def search_handbook(query: str) -> list[Document]:
    """Search the handbook."""
    return [FEES, HOURS]


class AskHandbook(dspy.Signature):
    """Answer from the handbook."""

    question: str = dspy.InputField(desc="What a guest wants to know.")
    answer: str = dspy.OutputField()
    citations: list[oneturn.Citation] = dspy.OutputField()


class Ask(dspy.Signature):
    """Help a guest."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()
    citations: list[oneturn.Citation] = dspy.OutputField()


LOOKED_UP = (call("search_handbook", query="fees"), finish(answer="Four euros.", citations=["fees"]))
ASKED = call("handbook", question="What do fees cost?")
ANSWERED = finish(answer="It costs four euros.", citations=["fees"])


def handbook(*script: Any, tools: Any = (search_handbook,)) -> oneturn.ReAct:
    program = oneturn.ReAct(AskHandbook, tools=tools)
    program.set_lm(ScriptedLM(*script))
    return program


def desk(*script: Any, tools: Any) -> oneturn.ReAct:
    program = oneturn.ReAct(Ask, tools=tools)
    program.set_lm(ScriptedLM(*script))
    return program


def of(kind: type[Step], steps: list[Step]) -> list[Any]:
    return [step for step in steps if isinstance(step, kind)]


def messages(steps: list[Step]) -> list[str]:
    """What the tools have reported of their work."""
    return [step.message for step in of(ToolProgress, steps) if step.message]


def spans_below(trace_id: str, name: str) -> tuple[list[str], list[str]]:
    """The names of the spans right below the one so named, and of all spans."""
    spans = mlflow.get_trace(trace_id).data.spans
    (above,) = [span for span in spans if span.name == name]
    return [span.name for span in spans if span.parent_id == above.span_id], [span.name for span in spans]


def result_of(tool: dspy.Tool, **args: Any) -> ToolResult:
    """What the outer agent's LM reads of a call."""
    outer = desk(call(str(tool.name), **args), finish(answer="x", citations=[]), tools=[tool])
    (result,) = of(ToolResult, list(outer.steps(question="?")))
    return result


def broken_rules(events: list[dict[str, Any]]) -> list[str]:
    return [broken.check for broken in check_stream(events) if broken.severity is not Severity.note]


# ---- what it takes


def test_the_signature_s_inputs_are_the_arguments():
    class Search(dspy.Signature):
        """Search the shelves.

        With patience.
        """

        title: str = dspy.InputField(desc="Part of a title.")
        most: Annotated[int, pydantic.Field(ge=1)] = dspy.InputField(default=3)
        genres: list[str] = dspy.InputField(default_factory=lambda: ["any"])
        shelf: str = dspy.OutputField()

    tool = oneturn.agent_tool(dspy.Predict(Search), "search")
    assert (tool.name, tool.desc) == ("search", "Search the shelves.\n\nWith patience.")
    assert tool.args["title"] == {"type": "string", "description": "Part of a title."}
    assert tool.args["most"]["default"] == 3
    assert tool.args["genres"]["default"] == ["any"]
    outer = oneturn.ReAct("question -> answer", tools=[tool])
    assert outer.tools["search"].args["most"]["minimum"] == 1
    with ScriptedLM(sections(shelf="A3")) as lm, dspy.context(lm=lm):
        assert tool(title="Emma") == "A3"
    with pytest.raises(ValueError, match="author is not in"):
        tool(author="Austen")


def test_a_history_is_empty_and_isn_t_asked_for():
    class Chat(dspy.Signature):
        question: str = dspy.InputField()
        history: dspy.History = dspy.InputField()
        answer: str = dspy.OutputField()

    tool = oneturn.agent_tool(dspy.Predict(Chat), "chat")
    assert list(tool.args) == ["question"]
    with ScriptedLM(sections(answer="hello")) as lm, dspy.context(lm=lm):
        assert tool(question="hi") == "hello"


def test_an_agent_that_reads_a_chat_is_asked_a_question():
    def complete(messages: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        yield {"model": "m", "choices": [{"delta": {"content": messages[-1]["content"].upper()}}]}
        yield {"model": "m", "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}}

    tool = oneturn.agent_tool(ChatCompletionsProgram(complete), "shout")
    assert list(tool.args) == ["question"]
    result = result_of(tool, question="hey")
    assert result.output == "HEY"
    assert result.usage == Usage(lm_calls=1, input_tokens=7, output_tokens=2)


def test_what_can_not_be_a_tool_is_refused():
    for name in ("", "no blanks", "1st", "a" * 65, "é"):
        with pytest.raises(ProgramError, match=r"isn.t a valid tool name"):
            oneturn.agent_tool(dspy.Predict("question -> answer"), name)
    with pytest.raises(ProgramError, match="above 0"):
        oneturn.agent_tool(dspy.Predict("question -> answer"), "a", timeout=0)
    with pytest.raises(ProgramError, match=r"An LM can.t write the input .picture."):
        oneturn.agent_tool(dspy.Predict("picture: dspy.Image -> answer"), "a")
    with pytest.raises(ProgramError, match=r"is no program|isn.t a program|not a program"):
        oneturn.agent_tool(3, "a")  # type: ignore[arg-type]


# ---- what it gives


def test_the_answer_is_read_with_its_sources_which_can_be_cited_again():
    outer = desk(ASKED, ANSWERED, tools=[oneturn.agent_tool(handbook(*LOOKED_UP), "handbook")])
    steps = list(outer.steps(question="What does it cost?"))
    (result,) = of(ToolResult, steps)
    assert result.output == "Four euros.\n\nSources: [fees] Fees"
    assert result.documents == (FEES,)
    (answer,) = of(Answer, steps)
    assert answer.prediction.citations == ["fees"]


def test_the_adapter_tells_the_inner_agent_s_sources_as_annotations():
    outer = desk(ASKED, ANSWERED, tools=[oneturn.agent_tool(handbook(*LOOKED_UP), "handbook")])
    served = oneturn.ResponsesAdapter(outer).predict({"input": [{"role": "user", "content": "?"}]})
    assert [item.type for item in served.output] == ["function_call", "function_call_output", "message"]
    (annotation,) = served.output[-1].content[0]["annotations"]
    assert annotation["url"] == "handbook/fees.md"


@pytest.mark.parametrize("wrap", [lambda program: program, oneturn.ResponsesAdapter, lambda program: lambda: program])
def test_an_adapter_and_a_builder_are_as_good_as_the_program(wrap: Callable[[Any], Any]):
    result = result_of(oneturn.agent_tool(wrap(handbook(*LOOKED_UP)), "handbook"), question="?")
    assert result.documents == (FEES,)


def test_structured_outputs_are_read_as_json():
    tool = oneturn.agent_tool(dspy.ChainOfThought("question -> answer, sure: bool"), "think")
    with dspy.context(lm=ScriptedLM(sections(reasoning="so", answer="four", sure=True))):
        assert result_of(tool, question="?").output == '{"answer": "four", "sure": true}'


# ---- what is seen of it


def test_its_tools_are_progress_of_the_tool_that_it_is():
    def count(to: int) -> int:
        """Count."""
        oneturn.progress("half", 0.5)
        return to

    inner = handbook(call("count", to=2), finish(answer="2", citations=[]), tools=[count])
    outer = desk(ASKED, finish(answer="x", citations=[]), tools=[oneturn.agent_tool(inner, "handbook")])
    steps = list(outer.steps(question="?"))
    (asked,) = of(ToolCall, steps)
    progress = of(ToolProgress, steps)
    assert {(step.call_id, step.name) for step in progress} == {(asked.call_id, "handbook")}
    assert messages(steps) == ["count: 2", "count: half"]
    assert [step.item["type"] for step in progress if step.item] == ["function_call", "function_call_output", "message"]


def test_its_items_stand_in_the_outer_stream_and_go_on_from_agent_to_agent():
    middle = desk(ASKED, ANSWERED, tools=[oneturn.agent_tool(handbook(*LOOKED_UP), "handbook")])
    asked = call("desk", question="What do fees cost?")
    outer = desk(asked, ANSWERED, tools=[oneturn.agent_tool(middle, "desk")])
    request = {"input": [{"role": "user", "content": "Fees?"}]}
    events = [event.model_dump() for event in oneturn.ResponsesAdapter(outer).predict_stream(request)]
    assert broken_rules(events) == []
    nested = [event["progress"]["item"] for event in events if (event.get("progress") or {}).get("item")]
    shown = [item.get("name") or item.get("output") or item["content"][0]["text"] for item in nested]
    answer_text = "Four euros.\n\nSources: [fees] Fees"
    hits = "[fees] A late book costs 4 euros.\n[hours] Open at nine."
    assert shown == ["handbook", "search_handbook", hits, "Four euros.", answer_text, "It costs four euros."]
    assert {event["progress"]["name"] for event in events if event.get("progress")} == {"desk"}
    kinds = [item["type"] for item in events[-1]["response"]["output"]]
    assert kinds == ["function_call", "function_call_output", "message"]


def test_each_inner_step_can_be_heard():
    heard: list[Step] = []
    tool = oneturn.agent_tool(handbook(*LOOKED_UP), "handbook", on_step=heard.append)
    result_of(tool, question="?")
    assert [step.name for step in of(ToolCall, heard)] == ["search_handbook"]
    assert "".join(step.text for step in of(AnswerDelta, heard)) == "Four euros."


def test_its_lm_calls_count_as_the_outer_run_s_once():
    inner = handbook(*LOOKED_UP)
    outer = desk(ASKED, ANSWERED, tools=[oneturn.agent_tool(inner, "handbook")])
    with dspy.track_usage() as around:
        steps = list(outer.steps(question="What does it cost?"))
    (usage,), (result,) = of(Usage, steps), of(ToolResult, steps)
    asked = [len(request.text.split()) for agent in (outer, inner) for request in agent.step.lm.requests]
    assert (usage.lm_calls, result.usage.lm_calls) == (4, 2)
    assert usage.input_tokens == sum(asked)
    assert result.usage.input_tokens == sum(asked[2:])
    total = around.get_total_tokens()["scripted/lm"]
    assert (total["prompt_tokens"], total["completion_tokens"]) == (usage.input_tokens, usage.output_tokens)


def test_what_a_tool_asks_an_lm_counts_whatever_the_tool_is():
    predict = dspy.Predict("question -> answer")
    predict.set_lm(ScriptedLM(sections(answer="four")))

    def think(question: str) -> str:
        """Think."""
        predict(question=question)
        raise ValueError("in vain")

    steps = list(desk(call("think", question="?"), finish(answer="x", citations=[]), tools=[think]).steps(question="?"))
    assert of(Usage, steps)[0].lm_calls == 3


def test_its_spans_stand_below_the_tool_s(traced: None):
    outer = desk(ASKED, ANSWERED, tools=[oneturn.agent_tool(handbook(*LOOKED_UP), "handbook")])
    with mlflow.start_span("request") as request:
        list(outer.steps(question="What does it cost?"))
    spans = mlflow.get_trace(request.trace_id).data.spans
    (tool,) = [span for span in spans if span.name == "handbook"]
    below = [(span.name, span.span_type) for span in spans if span.parent_id == tool.span_id]
    asked = ("scripted/lm", SpanType.CHAT_MODEL)
    assert below == [asked, ("search_handbook", SpanType.TOOL), asked]


def test_an_optimizer_s_trace_of_the_outer_program_holds_nothing_of_the_inner():
    outer = desk(ASKED, ANSWERED, tools=[oneturn.agent_tool(handbook(*LOOKED_UP), "handbook")])
    with dspy.context(trace=[]):
        outer(question="What does it cost?")
        assert [predictor for predictor, _, _ in dspy.settings.trace] == [outer.step]


# ---- any program inside any other


def module_react(*tools: Any) -> dspy.ReAct:
    return dspy.ReAct("question -> answer", tools=list(tools))


def react_script(tool: str, answer: str, **args: Any) -> list[str]:
    return [
        sections(next_thought="see", next_tool_name=tool, next_tool_args=args),
        sections(next_thought="done", next_tool_name="finish", next_tool_args={}),
        sections(reasoning="so", answer=answer),
    ]


def look_up(item: str) -> str:
    """Look up a price."""
    return f"{item} costs 4 euros"


def test_a_module_s_tool_calls_are_progress_in_a_module_too(traced: None):
    inner = module_react(look_up)
    inner.set_lm(ScriptedLM(*react_script("look_up", "4 euros", item="tea")))
    outer = as_program(module_react(oneturn.agent_tool(inner, "prices")))
    outer.module.set_lm(ScriptedLM(*react_script("prices", "four", question="tea?")))
    with mlflow.start_span("request") as request:
        steps = list(outer.steps(question="What does tea cost?"))
    assert [step.name for step in of(ToolCall, steps)] == ["prices"]
    assert messages(steps) == ["look_up: tea"]
    assert [step.output for step in of(ToolResult, steps)] == ["4 euros"]
    assert of(Usage, steps)[0].lm_calls == 6
    below, all_names = spans_below(request.trace_id, "prices")
    assert below == ["scripted/lm", "look_up", "scripted/lm", "scripted/lm"]
    assert all_names.count("scripted/lm") == 6


def test_a_oneturn_agent_s_sources_reach_a_module():
    class Cited(dspy.Signature):
        question: str = dspy.InputField()
        answer: str = dspy.OutputField()

    outer = as_program(dspy.ReAct(Cited, tools=[oneturn.agent_tool(handbook(*LOOKED_UP), "handbook")]))
    lm = ScriptedLM(*react_script("handbook", "four", question="?"))
    with dspy.context(lm=lm):
        steps = list(outer.steps(question="?"))
    (result,) = of(ToolResult, steps)
    assert (result.output, result.documents) == ("Four euros.\n\nSources: [fees] Fees", (FEES,))
    assert "Four euros." in lm.requests[1].text
    assert "page_content" not in lm.requests[1].text


def test_a_oneturn_agent_in_a_module_has_each_span_once(traced: None):
    outer = as_program(module_react(oneturn.agent_tool(handbook(*LOOKED_UP), "handbook")))
    outer.module.set_lm(ScriptedLM(*react_script("handbook", "four", question="?")))
    with mlflow.start_span("request") as request:
        steps = list(outer.steps(question="?"))
    below, all_names = spans_below(request.trace_id, "handbook")
    assert below == ["scripted/lm", "search_handbook", "scripted/lm"]
    assert all_names.count("scripted/lm") == 5
    assert of(Usage, steps)[0].lm_calls == 5


# ---- how it fails


def broken() -> str:
    """Break."""
    raise OSError("/etc/secret is gone")


class Crash(dspy.Module):
    signature = "question -> answer"

    def forward(self, question: str) -> dspy.Prediction:
        raise OSError("/srv/app/key.pem: token=abc")


FAILURES: list[tuple[Callable[[], Any], str]] = [
    (lambda: handbook(LMRateLimitError("slow down", model="m")), "rate_limit_exceeded"),
    (lambda: handbook("no step", "no step", "no step", "no step", "no step", "no step"), "invalid_output"),
    (lambda: Crash(), "server_error"),
]


@pytest.mark.parametrize(("build", "code"), FAILURES, ids=[code for _, code in FAILURES])
def test_a_failure_is_one_line_and_the_outer_run_goes_on(build: Callable[[], Any], code: str):
    result = result_of(oneturn.agent_tool(build(), "handbook"), question="?")
    assert result.is_error
    assert result.output == f"Error: the agent gave no answer ({code}); do without it, or rephrase the request"


def test_too_many_steps_are_a_failure_of_the_inner_agent_only():
    inner = oneturn.ReAct(AskHandbook, tools=[search_handbook], max_iters=1)
    inner.set_lm(ScriptedLM(call("search_handbook", query="x"), response_schema=False))
    assert "(max_iters)" in result_of(oneturn.agent_tool(inner, "handbook"), question="?").output


def test_what_a_failed_agent_has_cost_is_counted():
    outer = desk(
        ASKED,
        finish(answer="x", citations=[]),
        tools=[oneturn.agent_tool(handbook(*["no step"] * 6), "handbook")],
    )
    assert of(Usage, list(outer.steps(question="What do fees cost?")))[0].lm_calls == 8


class Matryoshka:
    """A program that is a tool of the agent that it runs."""

    signature = Ask
    answer_field = "answer"
    citing_fields: tuple[str, ...] = ("citations",)
    agent: oneturn.ReAct

    def steps(self, **inputs: Any) -> Iterator[Step]:
        return self.agent.steps(**inputs)


def test_an_agent_that_calls_itself_is_stopped():
    def again(request: ScriptedRequest) -> Any:
        if len(request.messages) == 2:
            return call("itself", question="?")
        return finish(answer=request.messages[-1]["content"], citations=[])

    doll = Matryoshka()
    doll.agent = desk(*[again] * 2 * (MAX_DEPTH + 1), tools=[oneturn.agent_tool(doll, "itself")])
    with doll.agent.step.lm:
        (answer,) = of(Answer, list(doll.steps(question="?")))
    assert "agents are nested 5 deep, the maximum; answer without itself" in answer.prediction.answer
    with doll.agent.step.lm:  # the count is the run's own
        assert dspy.settings.get("oneturn_agent_depth") is None


# ---- how it is stopped


class Patient:
    """A program that waits until it is let go; whoever stops it needn't wait for it."""

    signature = Ask
    answer_field = "answer"
    citing_fields: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.begun, self.let_go, self.closed = threading.Event(), threading.Event(), threading.Event()

    def steps(self, **inputs: Any) -> Iterator[Step]:
        try:
            self.begun.set()
            assert self.let_go.wait(PATIENCE)
            yield ToolCall("call_1", "too_late", {})
            raise AssertionError("it was not stopped")
        finally:
            self.closed.set()


@pytest.mark.parametrize("outer", ["oneturn.ReAct", "dspy.ReAct"])
def test_an_agent_that_takes_too_long_has_failed_and_is_stopped(outer: str):
    inner = Patient()
    tool = oneturn.agent_tool(inner, "slow", timeout=0.01)
    if outer == "oneturn.ReAct":
        result = result_of(tool, question="?")
    else:
        with dspy.context(lm=ScriptedLM(*react_script("slow", "x", question="?"))):
            (result,) = of(ToolResult, list(as_program(module_react(tool)).steps(question="?")))
    assert result.output == "Error: the tool exceeded its timeout of 0.01 s"
    inner.let_go.set()
    assert inner.closed.wait(PATIENCE)


def test_the_outer_run_s_end_is_the_inner_run_s():
    inner = Patient()
    control = RunContext()
    outer = desk(ASKED, tools=[oneturn.agent_tool(inner, "handbook")])

    def cancel() -> None:
        assert inner.begun.wait(PATIENCE)
        control.cancel("client_gone")

    threading.Thread(target=cancel).start()
    with control.active(), pytest.raises(RunCancelled, match="client_gone"):
        list(outer.steps(question="?"))
    inner.let_go.set()
    assert inner.closed.wait(PATIENCE)


def test_an_inner_lm_is_left_when_the_outer_run_ends():
    begun, given_up = threading.Event(), threading.Event()
    control = RunContext()

    def slow(asked: ScriptedRequest) -> Any:
        begun.set()
        assert given_up.wait(PATIENCE)
        return call("search_handbook", query="in vain")

    def cancel() -> None:
        assert begun.wait(PATIENCE)
        control.cancel("shutting_down")

    inner = handbook(slow)
    agent = oneturn.ResponsesAdapter(desk(ASKED, tools=[oneturn.agent_tool(inner, "handbook")]))
    threading.Thread(target=cancel).start()
    with control.active():
        served = agent.predict({"input": [{"role": "user", "content": "?"}]})
    given_up.set()
    assert (served.status, served.incomplete_details.reason) == ("incomplete", "shutting_down")
    assert len(inner.step.lm.requests) == 1


def test_an_agent_isn_t_asked_once_the_run_has_to_stop():
    control = RunContext()
    control.cancel("client_gone")
    with control.active(), pytest.raises(RunCancelled, match="client_gone"):
        oneturn.agent_tool(handbook(), "handbook")(question="?")


def test_the_outer_deadline_is_the_inner_run_s():
    inner = Patient()
    agent = oneturn.ResponsesAdapter(desk(ASKED, tools=[oneturn.agent_tool(inner, "handbook")]), deadline=0.05)
    served = agent.predict({"input": [{"role": "user", "content": "?"}]})
    assert (served.status, served.incomplete_details.reason) == ("incomplete", "deadline_exceeded")
    inner.let_go.set()


# ---- many at once


def test_sixteen_runs_at_once_do_not_mix():
    def search(query: str) -> list[Document]:
        """Search."""
        return [Document(f"about {query}", {"title": query}, f"doc-{query}")]

    def inner_reply(request: ScriptedRequest) -> Any:
        marker = request.messages[1]["content"].removeprefix("question: ")
        if len(request.messages) == 2:
            return call("search", query=marker)
        return finish(answer=f"inner {marker}", citations=[f"doc-{marker}"])

    def outer_reply(request: ScriptedRequest) -> Any:
        marker = request.messages[1]["content"].removeprefix("question: ")
        if len(request.messages) == 2:
            return call("handbook", question=marker)
        return finish(answer=f"outer {marker}", citations=[f"doc-{marker}"])

    inner = handbook(*[inner_reply] * 32, tools=[search])
    outer = desk(*[outer_reply] * 32, tools=[oneturn.agent_tool(inner, "handbook")])
    together = threading.Barrier(16)

    def run(number: int) -> list[Step]:
        together.wait(PATIENCE)
        return list(outer.steps(question=f"item-{number:02d}"))

    with ThreadPoolExecutor(16) as pool:
        runs = list(pool.map(run, range(16)))
    for number, steps in enumerate(runs):
        marker = f"item-{number:02d}"
        (result,), (answer,), (usage,) = of(ToolResult, steps), of(Answer, steps), of(Usage, steps)
        assert result.output == f"inner {marker}\n\nSources: [doc-{marker}] {marker}"
        assert messages(steps) == [f"search: {marker}"]
        assert (answer.prediction.answer, answer.prediction.citations) == (f"outer {marker}", [f"doc-{marker}"])
        assert (usage.lm_calls, result.usage.lm_calls) == (4, 2)
