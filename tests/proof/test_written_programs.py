"""Whatever sequence of steps a program yields, and wherever it fails, its stream is right."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator
from typing import Any

import dspy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.types.responses import ResponsesAgentRequest

from oneturn import ResponsesAdapter
from oneturn.conformance.events import done_items
from oneturn.core.run_context import RunContext
from oneturn.core.steps import Answer, AnswerDelta, Step, ToolCall, ToolProgress, ToolResult
from oneturn.core.usage import Usage
from oneturn.tools.approvals import Approvals
from tests.proof.failures import SECRET, Nameless
from tests.proof.judging import (
    NO_COST_TOLD,
    answer_in,
    judged,
    known_to_clients,
    outcome,
    without_a_stream_it_says_the_same,
)
from tests.proof.profile import proof
from tests.proof.scripted import KEY
from tests.proof.written import Raise, Written, any_run, orderly_runs, signatures

REQUEST = ResponsesAgentRequest(input=[{"role": "user", "content": "?"}])
runs = any_run | orderly_runs()


def served(program: Any) -> ResponsesAdapter:
    return ResponsesAdapter(program, approvals=Approvals(KEY))


def before_the_end(run: list[Any]) -> list[Any]:
    """What happens in a run until it is over: its cost is known, or it fails."""
    end = next((place for place, step in enumerate(run) if isinstance(step, Usage | Raise)), len(run))
    return run[:end]


@proof
@given(runs, signatures)
def test_whatever_a_program_yields_its_stream_is_right(run: list[Any], signature: Any):
    program = Written(run, signature)
    stream = judged(served(program).predict_stream(REQUEST), known=[NO_COST_TOLD])
    assert program.closed == 1
    assert SECRET not in str(stream)
    without_a_stream_it_says_the_same(served(Written(run, signature)), REQUEST, stream)


@proof
@given(orderly_runs(), signatures)
def test_a_run_completes_with_its_answer_or_it_failed_before(run: list[Any], signature: Any):
    stream = judged(served(Written(run, signature)).predict_stream(REQUEST))
    if isinstance(run[len(before_the_end(run))], Raise):
        assert outcome(stream) in ("failed", "incomplete")
        return
    assert outcome(stream) == "completed"
    prediction = next(step.prediction for step in run if isinstance(step, Answer))
    if "answer" in signature.output_fields:
        assert answer_in(stream) == (prediction.answer or "").replace("\ud800", "\ufffd")
    else:
        assert json.loads(answer_in(stream) or "") == stream[-1]["response"]["custom_outputs"]
    assert set(stream[-1]["response"]["custom_outputs"]) == set(signature.output_fields) - {"answer"}


@proof
@given(runs, st.integers(0, 12))
def test_a_client_that_leaves_at_any_event_ends_the_run_there(run: list[Any], place: int):
    whole = [event.type for event in served(Written(run)).predict_stream(REQUEST)]
    program = Written(run)
    stream = served(program).predict_stream(REQUEST)
    seen = [event.model_dump() for _, event in zip(range(place), stream, strict=False)]
    stream.close()
    assert next(stream, None) is None
    assert [event["type"] for event in seen] == whole[:place]
    assert [event["sequence_number"] for event in seen] == list(range(len(seen)))
    for event in seen:
        known_to_clients(event)
    assert program.closed <= 1


@proof
@given(runs, st.integers(0, 12))
def test_a_run_that_is_stopped_at_any_event_ends_there_with_what_is_known(run: list[Any], place: int):
    control, program = RunContext(), Written(run)
    events = []
    with control.active():
        for number, event in enumerate(served(program).predict_stream(REQUEST)):
            events.append(event)
            if number == place:
                control.cancel("shutting_down")
    stream = judged(events, known=[NO_COST_TOLD])
    if outcome(stream) == "incomplete" and not any(isinstance(step, Raise) for step in run):
        assert stream[-1]["response"]["incomplete_details"] == {"reason": "shutting_down"}
    elif len(stream) > place + 20:
        pytest.fail("it went on")


@pytest.mark.parametrize("error", [KeyboardInterrupt, Nameless])
def test_what_stops_the_whole_process_goes_through_after_the_stream_s_end(error: Any):
    stream = served(Written([AnswerDelta("It is "), Raise(error)])).predict_stream(REQUEST)
    seen = list(itertools.takewhile(lambda event: event.type != "response.failed", stream))
    assert [event.type for event in seen[-2:]] == ["response.output_item.done", "error"]
    with pytest.raises(error):
        next(stream)


@pytest.mark.parametrize("error", [SystemExit, GeneratorExit, asyncio.CancelledError])
def test_what_would_stop_more_than_the_run_is_a_failure_of_the_run(error: Any):
    stream = judged(served(Written([AnswerDelta("It is "), Raise(error)])).predict_stream(REQUEST))
    assert stream[-2]["message"] == "The agent failed (ProgramError); see its trace for details."


def test_a_program_whose_end_fails_has_failed():
    class Clumsy(Written):
        def steps(self, **inputs: Any) -> Iterator[Step]:
            try:
                yield from super().steps(**inputs)
            finally:
                raise RuntimeError(SECRET)

    done = Answer(dspy.Prediction(answer="12", citations=[], score=1.0))
    assert outcome(judged(served(Clumsy([done, Usage(1)])).predict_stream(REQUEST))) == "failed"


def test_a_program_without_an_answer_has_failed():
    stream = judged(served(Written([AnswerDelta("It is "), Usage(1)])).predict_stream(REQUEST))
    assert outcome(stream) == "failed"
    assert answer_in(stream) is None


def test_an_answer_that_was_told_in_other_words_is_told_anew():
    done = Answer(dspy.Prediction(answer="Twelve.", citations=[], score=1.0))
    stream = judged(served(Written([AnswerDelta("It is "), done, Usage(1)])).predict_stream(REQUEST))
    texts = [(item["status"], item["content"][0]["text"]) for item in done_items(stream)]
    assert texts == [("incomplete", "It is "), ("completed", "Twelve.")]
    assert stream[-1]["response"]["output"] == done_items(stream)[1:], "the draft isn't in the response"


def test_calls_of_the_same_id_one_after_the_other_are_told_apart():
    once = [ToolCall("call_0", "look_up", {}), ToolProgress("call_0", "look_up"), ToolResult("call_0", "look_up", "x")]
    done = Answer(dspy.Prediction(answer="12", citations=[], score=1.0))
    stream = judged(served(Written([*once, *once, done, Usage(1)])).predict_stream(REQUEST))
    called = [item["call_id"] for item in stream[-1]["response"]["output"][:4]]
    assert (called[0], called[2]) == (called[1], called[3])
    assert called[0] == "call_0" != called[2]
    texts = [event["progress"]["call_id"] for event in stream if "progress" in event]
    assert texts == [called[0], called[2]]
