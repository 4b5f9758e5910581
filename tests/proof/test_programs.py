"""Whatever an LM says and its tools do, and wherever either fails, the stream of any program is right."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from mlflow.types.responses import ResponsesAgentRequest

from oneturn.core.run_context import RunContext
from tests.proof.failures import SECRET
from tests.proof.judging import judged, known_to_clients, outcome, without_a_stream_it_says_the_same
from tests.proof.profile import proof
from tests.proof.scripted import Act, Case, cases

REQUEST = ResponsesAgentRequest(input=[{"role": "user", "content": "How many?"}])


@proof
@given(cases)
def test_whatever_happens_in_a_run_its_stream_is_right(case: Case):
    stream = judged(case.adapter().predict_stream(REQUEST))
    assert SECRET not in str(stream)
    if "parallel" not in case.program:  # results come in the order in which the tools are done
        without_a_stream_it_says_the_same(case.adapter(), REQUEST, stream, exactly=False)


@proof
@given(cases, st.integers(0, 30))
def test_a_client_that_leaves_at_any_event_stops_the_lm(case: Case, place: int):
    lm = case.lm()
    stream = case.adapter(lm).predict_stream(REQUEST)
    seen = [event.model_dump() for _, event in zip(range(place), stream, strict=False)]
    asked = len(lm.requests)
    stream.close()
    finished()
    assert len(lm.requests) <= asked + 1  # one more, if it was being asked at that moment
    assert [event["sequence_number"] for event in seen] == list(range(len(seen)))
    for event in seen:
        known_to_clients(event)


@proof
@given(cases, st.integers(0, 30))
def test_a_run_that_is_stopped_at_any_event_ends_with_what_is_known(case: Case, place: int):
    lm, control, events, asked = case.lm(), RunContext(), [], 99
    with control.active():
        for number, event in enumerate(case.adapter(lm).predict_stream(REQUEST)):
            events.append(event)
            if number == place:
                control.cancel("shutting_down")
                asked = len(lm.requests)
    stream = judged(events)
    finished()
    assert len(lm.requests) <= asked + 1
    if outcome(stream) == "incomplete" and asked < 99:
        assert stream[-1]["response"]["incomplete_details"]["reason"] in ("shutting_down", "enough")


@proof
@given(cases, st.integers(0, 2), st.sampled_from([0.0, 0.01]))
def test_a_deadline_that_comes_at_any_point_ends_the_run_with_what_is_known(case: Case, place: int, deadline: float):
    acts: list[Any] = [*case.acts]
    acts[place] = Act(waits=True, tells=True)
    late = dataclasses.replace(case, acts=tuple(acts), deadline=deadline)
    stream = judged(late.adapter().predict_stream(REQUEST))
    if deadline == 0:
        assert outcome(stream) == "incomplete"
        assert stream[-1]["response"]["incomplete_details"] == {"reason": "deadline_exceeded"}


def finished() -> None:
    """Wait for what the runs have begun."""
    for thread in threading.enumerate():
        if thread.name.startswith(("oneturn-run", "oneturn-tool")):
            thread.join(30)
