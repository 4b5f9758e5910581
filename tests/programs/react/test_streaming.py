"""A run as a stream of steps: the answer while it is being written, whatever the LM, however many runs at once."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import dspy
import mlflow
import pytest
from dspy import lm15
from dspy.lm15 import Message, Request, Response, ServerError, TextPart, response_to_events
from dspy.utils.callback import BaseCallback
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.entities import SpanType

from oneturn import ReAct
from oneturn.core.steps import Answer, AnswerDelta, Thought, ToolCall, ToolResult
from oneturn.core.usage import NO_USAGE, Usage
from oneturn.testing import ScriptedLM, ScriptedRequest, call, finish
from tests.gated_engine import GatedEngine


def look_up(item: str) -> str:
    """Look up the price of an item."""
    return f"{item} costs 4 euros"


def program(**options: Any) -> ReAct:
    return ReAct("question -> answer: str, sure: bool", tools=[look_up], **options)


SCRIPT = (call("look_up", "see the list", item="tea"), finish("it's there", answer="Tea costs 4 euros.", sure=True))


def stream(lm: dspy.BaseLM, agent: ReAct | None = None, **inputs: Any) -> list[Any]:
    with dspy.context(lm=lm):
        return list((agent or program()).steps(**(inputs or {"question": "What does tea cost?"})))


def answer_of(steps: list[Any], attempt: int = 0) -> str:
    return "".join(step.text for step in steps if isinstance(step, AnswerDelta) and step.attempt == attempt)


def described(steps: list[Any]) -> list[Any]:
    """The steps without what differs from LM to LM and from run to run: ids, the number of deltas, the cost."""
    kept: list[Any] = []
    for step in steps:
        if isinstance(step, AnswerDelta):
            continue
        if isinstance(step, ToolCall):
            kept.append(("call", step.name, dict(step.args)))
        elif isinstance(step, ToolResult):
            kept.append(("result", step.output))
        elif isinstance(step, Answer):
            kept.append(("answer", answer_of(steps), step.prediction.answer, step.prediction.sure))
        elif isinstance(step, Thought):
            kept.append(step)
    return kept


def test_steps_come_as_they_happen_the_answer_in_pieces():
    steps = stream(ScriptedLM(*SCRIPT))
    kinds = list(dict.fromkeys(type(step) for step in steps))
    assert kinds == [Thought, ToolCall, ToolResult, AnswerDelta, Answer, Usage]
    assert [step.text for step in steps if isinstance(step, Thought)] == ["see the list", "it's there"]
    assert sum(isinstance(step, AnswerDelta) for step in steps) > 2
    assert answer_of(steps) == "Tea costs 4 euros."
    calls = [step.call_id for step in steps if isinstance(step, ToolCall)]
    assert [step.call_id for step in steps if isinstance(step, ToolResult)] == calls
    assert steps[-1].lm_calls == 2
    assert steps[-1].tokens > 0


AWKWARD = st.text(
    st.one_of(st.characters(codec="utf-8"), st.sampled_from('"\\\n\t{}[]:,é€🤝👩‍👧\u2028')), max_size=40
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(answer=AWKWARD, thought=AWKWARD, piece=st.integers(1, 30), escaped=st.booleans())
def test_the_pieces_make_the_answer_whatever_it_is(answer: str, thought: str, piece: int, escaped: bool):
    reply = json.dumps(finish(thought, answer=answer, sure=True), ensure_ascii=escaped)
    steps = stream(ScriptedLM(reply, piece=piece))
    assert answer_of(steps) == answer
    assert next(step.prediction.answer for step in steps if isinstance(step, Answer)) == answer
    thoughts = [step.text for step in steps if isinstance(step, Thought)]
    assert thoughts == ([thought] if thought else [])
    if thought:
        assert isinstance(steps[0], Thought)


@pytest.mark.parametrize("options", [{"streams": False}, {"piece": 1}, {"piece": 10_000}, {"response_schema": False}])
def test_the_same_steps_come_from_any_lm(options: dict[str, Any]):
    assert described(stream(ScriptedLM(*SCRIPT, **options))) == described(stream(ScriptedLM(*SCRIPT)))


def test_the_same_steps_come_from_the_cache():
    with ScriptedLM(*SCRIPT, cache=True) as lm:
        asked = stream(lm)
        cached = stream(lm)
    assert described(cached) == described(asked)
    assert cached[-1] == NO_USAGE


def test_the_same_steps_come_from_an_lm_that_owns_its_connection():
    class Own(dspy.BaseLM):
        def __init__(self) -> None:
            super().__init__("own/lm", cache=False)
            self.replies = iter(SCRIPT)

        def forward(self, prompt: Any = None, messages: Any = None, **kwargs: Any) -> Any:
            from openai.types.chat import ChatCompletion

            message = {"role": "assistant", "content": json.dumps(next(self.replies))}
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            return ChatCompletion.model_validate(
                {
                    "id": "1",
                    "object": "chat.completion",
                    "created": 0,
                    "model": "own",
                    "choices": [choice],
                    "usage": usage,
                }
            )

    assert described(stream(Own())) == described(stream(ScriptedLM(*SCRIPT)))


def test_the_steps_end_with_what_forward_returns():
    steps = stream(ScriptedLM(*SCRIPT))
    with dspy.context(lm=ScriptedLM(*SCRIPT)):
        prediction = program()(question="What does tea cost?")
    (answer,) = (step for step in steps if isinstance(step, Answer))
    assert answer.prediction.toDict() == prediction.toDict()


def test_an_answer_that_must_be_repaired_is_told_anew():
    steps = stream(ScriptedLM(finish(answer="Perhaps", sure="perhaps"), finish(answer="4 euros", sure=True)))
    assert (answer_of(steps, 0), answer_of(steps, 1)) == ("Perhaps", "4 euros")


def test_an_lm_that_breaks_off_and_is_asked_again_has_its_answer_told_anew():
    class Breaking:
        supports_response_schema = True
        supported_params = frozenset({"response_format"})
        asked = 0

        def complete(self, request: Request) -> Response:
            raise AssertionError("this LM streams")

        def stream(self, request: Request) -> Iterator[Any]:
            self.asked += 1
            text = json.dumps(finish(answer="4 euros", sure=True))
            message = Message.assistant(TextPart(text))
            start, delta, end = response_to_events(Response(None, request.model, message, "stop", lm15.Usage()))
            yield start
            if self.asked == 1:
                yield replace(delta, delta=replace(delta.delta, text=text[: text.index("euros") + 2]))
                raise ServerError("gone", retry_after=0)
            yield from (delta, end)

    steps = stream(dspy.LM("breaking/lm", engine=Breaking(), cache=False, num_retries=1))
    attempts = [step.attempt for step in steps if isinstance(step, AnswerDelta)]
    assert answer_of(steps, attempts[-1]) == "4 euros"
    assert attempts == sorted(attempts)


def test_text_that_is_no_step_is_never_told_as_the_answer():
    steps = stream(ScriptedLM('{"answer": "oops"}', "oops", finish(answer="4 euros", sure=True)))
    assert answer_of(steps) == "4 euros"
    assert "oops" not in repr([step for step in steps if not isinstance(step, Answer)])


def test_a_program_without_a_text_output_streams_no_text():
    steps = stream(ScriptedLM(finish(count=3)), ReAct("question -> count: int", tools=[]))
    assert [type(step) for step in steps] == [Answer, Usage]


def test_without_thoughts_there_are_none():
    steps = stream(ScriptedLM(*({"tool_call": step["tool_call"]} for step in SCRIPT)), program(thoughts=False))
    assert not [step for step in steps if isinstance(step, Thought)]
    assert answer_of(steps) == "Tea costs 4 euros."


# ---- leaving early


def test_a_reader_who_leaves_stops_the_lm():
    engine = GatedEngine('{"thought": "", "tool_call": {"name": "finish", "args": {"answer": "a')
    with dspy.context(lm=dspy.LM("gated/lm", engine=engine, cache=False)):
        steps = program().steps(question="?")
        assert next(steps) == AnswerDelta("a", checked=False)
        steps.close()
    engine.go_on.set()
    assert engine.closed.wait(30)
    assert (engine.requests, engine.written) == (1, 1)


def test_a_run_that_is_left_after_a_tool_asks_the_lm_no_more():
    lm = ScriptedLM(*SCRIPT)
    with dspy.context(lm=lm):
        steps = program().steps(question="?")
        while not isinstance(next(steps), ToolResult):
            pass
        steps.close()
    assert len(lm.requests) == 1


def test_a_run_that_nobody_reads_does_nothing():
    with ScriptedLM() as lm, dspy.context(lm=lm):
        program().steps(question="?")


# ---- what reaches the thread that asks the LM


class Listener(BaseCallback):
    def __init__(self) -> None:
        self.heard: list[str] = []

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        self.heard.append(instance.model)


def test_callbacks_and_usage_of_the_caller_s_context_see_a_streamed_run():
    listener = Listener()
    with dspy.context(callbacks=[listener]), dspy.track_usage() as usage:
        steps = stream(ScriptedLM(*SCRIPT))
    assert listener.heard == ["scripted/lm"] * 2
    total = usage.get_total_tokens()["scripted/lm"]
    assert Usage.from_dspy({**total, "lm_calls": 2}) == steps[-1]


def test_spans_of_a_streamed_run_stand_below_the_caller_s(traced: None):
    with mlflow.start_span("request") as request:
        stream(ScriptedLM(*SCRIPT))
    trace = mlflow.get_trace(request.trace_id)
    root = next(span for span in trace.data.spans if span.parent_id is None)
    assert root.name == "request"
    below = [(span.name, span.span_type) for span in trace.data.spans if span.parent_id == root.span_id]
    asked = ("scripted/lm", SpanType.CHAT_MODEL)
    assert below == [asked, ("look_up", SpanType.TOOL), asked]


# ---- many at once


def respond(request: ScriptedRequest) -> dict[str, Any]:
    question = request.messages[1]["content"].removeprefix("question: ")
    if len(request.messages) == 2:
        return call("look_up", f"thinking of {question}", item=question)
    return finish(f"sure of {question}", answer=f"{question}: {request.messages[-1]['content']}", sure=True)


def test_forty_runs_at_once_do_not_mix():
    agent = program()
    markers = [f"item-{number:02d}" for number in range(40)]
    with ScriptedLM(*[respond] * 80, piece=3) as lm, ThreadPoolExecutor(40) as pool:
        together = threading.Barrier(40)

        def run(marker: str) -> list[Any]:
            together.wait(30)
            return stream(lm, agent, question=marker)

        runs = list(pool.map(run, markers))
    for marker, steps in zip(markers, runs, strict=True):
        assert answer_of(steps) == f"{marker}: {marker} costs 4 euros"
        told_of = {other for other in markers if other in repr(described(steps))}
        assert told_of == {marker}
