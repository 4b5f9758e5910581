"""Fewer at a time while the LM is busy, and again more; nobody waits for real in these tests."""

from __future__ import annotations

import threading
from typing import Any

import dspy
import pytest
from dspy.utils.exceptions import LMRateLimitError

import oneturn
from oneturn.errors import AgentError, EndpointError
from oneturn.evaluation.rate_limit import ConcurrencyLimiter
from oneturn.evaluation.row import evaluate_row
from oneturn.evaluation.targets import EndpointTarget, ProgramTarget
from tests.responses.test_client import streaming


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def limiter(most: int, clock: Clock) -> ConcurrencyLimiter:
    return ConcurrencyLimiter(most, clock=lambda: clock.now, sleep=clock.sleep)


def test_a_refusal_halves_what_is_allowed_and_answers_raise_it_again():
    clock = Clock()
    found = limiter(8, clock)
    found.refused(3.0, 0)
    found.refused(2.0, 0)  # sent together with the first
    assert found.allowed == 4
    with found.slot():
        assert clock.slept == [3.0]
    clock.now += 1
    found.refused(1.0, 0)
    assert found.allowed == 2
    for _ in range(100):
        found.answered()
    assert found.allowed == 8


def test_without_a_word_about_when_it_waits_longer_each_time():
    clock = Clock()
    found = limiter(2, clock)
    for attempt in range(3):
        found.refused(None, attempt)
        with found.slot():
            pass
    assert clock.slept == [1.0, 2.0, 4.0]


def test_no_more_than_allowed_are_at_work():
    found, lock, gate = ConcurrencyLimiter(3), threading.Lock(), threading.Barrier(3)
    at_work, most = 0, 0

    def work() -> None:
        nonlocal at_work, most
        with found.slot():
            with lock:
                at_work += 1
                most = max(most, at_work)
            gate.wait(30)
            with lock:
                at_work -= 1

    threads = [threading.Thread(target=work) for _ in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == 3


class Refusing(dspy.Module):
    """Refuses the first so many times."""

    def __init__(self, times: int, error: Exception):
        super().__init__()
        self.times = times
        self.error = error
        self.asked = 0

    def forward(self, question: str) -> dspy.Prediction:
        self.asked += 1
        if self.asked <= self.times:
            raise self.error
        return dspy.Prediction(answer="yes")


EXAMPLE = dspy.Example(question="?").with_inputs("question")


def row(program: dspy.Module, clock: Clock) -> dict[str, Any]:
    target = ProgramTarget(program, None, trace=False)
    return evaluate_row(target, EXAMPLE, {"score": lambda *_: 1.0}, limiter(4, clock), tries=4)


@pytest.mark.parametrize(
    "error",
    [
        EndpointError("busy", "busy", 429, retry_after=7.0),
        AgentError("busy", "busy", 429, retry_after=7.0),
        LMRateLimitError("busy", model="m", retry_after=7.0),
    ],
)
def test_a_refused_row_is_retried_after_the_requested_pause(error: Exception):
    clock = Clock()
    found = row(Refusing(2, error), clock)
    assert (found["error"], found["tries"], found["score"]) == (None, 3, 1.0)
    assert clock.slept == [7.0, 7.0]


def test_an_endpoint_that_is_busy_in_its_stream_is_asked_again_after_the_requested_pause():
    error = {
        "type": "too_many_requests",
        "code": "rate_limit_exceeded",
        "message": "Slow.",
        "headers": {"Retry-After": "7"},
    }
    clock = Clock()
    with streaming({"type": "error", "code": error["code"], "message": "Slow.", "error": error}) as endpoint:
        target = EndpointTarget(endpoint.url, None)
        found = evaluate_row(target, EXAMPLE, {"score": lambda *_: 1.0}, limiter(4, clock), tries=2)
    assert (found["error"], found["tries"]) == ("EndpointError: Slow.", 2)
    assert (clock.slept, endpoint.requests) == ([7.0], 2)


def test_a_row_that_is_refused_each_time_stays_with_its_reason():
    program = Refusing(99, EndpointError("busy", "busy", 503))
    found = row(program, Clock())
    assert (found["error"], found["tries"], program.asked) == ("EndpointError: busy", 4, 4)


@pytest.mark.parametrize("error", [ValueError("no"), EndpointError("broken", "server_error", 500)])
def test_what_would_run_the_tools_again_is_not_tried_again(error: Exception):
    program = Refusing(99, error)
    assert row(program, Clock())["tries"] == program.asked == 1


def test_threads_do_not_change_the_rows():
    rows = [dspy.Example(question=str(number)).with_inputs("question") for number in range(30)]
    found = oneturn.evaluate(Refusing(0, ValueError()), rows, lambda *_: 1.0, threads=8, progress=False)
    assert found.rows["question"].tolist() == [str(number) for number in range(30)]
