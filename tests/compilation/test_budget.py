"""The cost of a compile is estimated in advance, and the budget is never exceeded."""

from __future__ import annotations

import asyncio
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor, TimeoutError
from pathlib import Path
from typing import Any

import dspy
import pytest

import oneturn
from oneturn.compilation import Candidate, CompileCallback, estimate_compile
from oneturn.compilation.budget import Budget, BudgetSpent, reached_limit
from oneturn.compilation.journal import Cursor, Journal, JournalEntry
from oneturn.compilation.replay_lm import journaled_lm
from oneturn.config import BudgetConfig
from oneturn.core.usage import Usage
from oneturn.errors import ConfigError, ProgramError, RunError
from oneturn.programs.state import read_manifest
from tests.compilation.agent import ANSWERED, CountingLM, agent
from tests.compilation.test_resuming import artifact
from tests.programs.react.chat_stub import chat_stub


def answered(folder: Path) -> int:
    return len((folder / ANSWERED).read_text().splitlines())


@pytest.mark.parametrize("calls", [8, 11, 20, 33])
def test_compile_ends_at_the_limit_with_the_best_measured_program(calls: int, tmp_path: Path):
    done = oneturn.compile(agent(tmp_path), budget=BudgetConfig(lm_calls=calls))
    assert answered(tmp_path) <= calls
    assert done.stopped == f"{calls} LM calls"
    measured = [candidate.score for candidate in done.candidates if candidate.full]
    assert done.after.score == max(measured) >= done.before.score
    manifest = read_manifest(tmp_path / "compiled.json")
    assert manifest.stopped == f"{calls} LM calls"
    assert manifest.spend["lm_calls"] == answered(tmp_path)
    agent(tmp_path).program()  # the saved program can be loaded


def test_compile_resumes_with_a_higher_limit_to_the_same_program(tmp_path: Path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "stopped").mkdir()
    oneturn.compile(agent(tmp_path / "whole"))
    oneturn.compile(agent(tmp_path / "stopped"), budget=BudgetConfig(lm_calls=20))
    oneturn.compile(agent(tmp_path / "stopped"))
    assert artifact(tmp_path / "stopped") == artifact(tmp_path / "whole")
    assert answered(tmp_path / "stopped") == answered(tmp_path / "whole")


def test_budget_too_small_for_the_uncompiled_program_is_an_error(tmp_path: Path):
    with pytest.raises(
        ConfigError, match="The budget of 7 LM calls was spent before the uncompiled program was measured"
    ):
        oneturn.compile(agent(tmp_path), budget=BudgetConfig(lm_calls=7))
    assert answered(tmp_path) == 7


def test_threads_share_the_limit(tmp_path: Path):
    journal = Journal(tmp_path / "journal.jsonl")
    budget = Budget(BudgetConfig(lm_calls=10), journal, lambda totals: None)

    def ask(number: int) -> bool:
        try:
            with budget.call():
                journal.add(str(number), JournalEntry({"model": "m"}, 0.0, Usage(lm_calls=1)))
        except BudgetSpent:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        passed = list(pool.map(ask, range(50)))
    assert sum(passed) == journal.totals.lm_calls <= 10


def test_calls_through_litellm_are_journaled(tmp_path: Path):
    journal = Journal(tmp_path / "journal.jsonl")
    budget = Budget(BudgetConfig(lm_calls=10), journal, lambda totals: None)
    with chat_stub("[[ ## answer ## ]]\na", "[[ ## answer ## ]]\nb") as stub:
        for option in (1, 2, 1):
            lm = journaled_lm(stub.lm(extra_body={"a": option}), journal, Cursor(), budget, cache=False)
            with dspy.context(lm=lm):
                answer = dspy.Predict("question -> answer")(question="?").answer
            assert answer == {1: "a", 2: "b"}[option]
    assert (len(stub.requests), journal.totals.lm_calls, journal.totals.output_tokens) == (2, 2, 10)


def test_calls_in_progress_at_the_limit_are_completed_and_saved(tmp_path: Path):
    journal = Journal(tmp_path / "journal.jsonl")
    budget = Budget(BudgetConfig(lm_calls=10), journal, lambda totals: None)
    started, may_answer = threading.Event(), threading.Event()

    def ask() -> None:
        with budget.call():
            started.set()
            may_answer.wait()
            journal.add("slow", JournalEntry({"model": "m"}, 0.0, Usage(lm_calls=1)))

    with ThreadPoolExecutor(2) as pool:
        asking = pool.submit(ask)
        started.wait()
        closing = pool.submit(budget.close, "the compile is over")
        try:
            with pytest.raises(TimeoutError):
                closing.result(timeout=0.2)  # it waits for the call in progress
        finally:
            may_answer.set()
        closing.result()
        asking.result()
    assert journal.totals.lm_calls == 1
    with pytest.raises(RunError, match="No further LM calls are made: the compile is over"), budget.call():
        pass


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"lm_calls": 5}, "5 LM calls"),
        ({"tokens": 1000}, "1,000 tokens"),
        ({"minutes": 2.5}, "2.5 minutes"),
        ({"cost": 0.2}, "0.2 US dollars"),
        ({"lm_calls": 6, "tokens": 1001, "minutes": 3, "cost": 0.21}, None),
        ({}, None),
    ],
)
def test_reached_limit_returns_the_limit(limits: dict[str, Any], message: str | None):
    spent = Usage(lm_calls=5, input_tokens=900, output_tokens=100, cost=0.2)
    assert reached_limit(BudgetConfig(**limits), spent, seconds=150) == message


def test_cost_limit_without_a_known_price_is_an_error(tmp_path: Path):
    for start in (estimate_compile, oneturn.compile):
        with pytest.raises(ConfigError, match="cost can't be enforced: no price of counting/lm is known"):
            start(agent(tmp_path), budget=BudgetConfig(cost=0.1))
    assert answered(tmp_path) == 5, "the questions of the estimate are asked once"
    assert oneturn.compile(agent(tmp_path), budget=BudgetConfig(lm_calls=100)).stopped is None


def test_cost_limit_warns_about_an_lm_without_a_price(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    teacher = CountingLM(tmp_path, name="priced/teacher")
    monkeypatch.setattr("oneturn.compilation.plan.build_lm", lambda config: teacher)
    monkeypatch.setattr(
        "oneturn.core._dspy.estimate_cost",
        lambda response, requested_model, **_: (0.5 if requested_model == "priced/teacher" else None, None),
    )

    def taught(student: Any, *, teacher: Any) -> Any:
        for number in range(9):
            teacher(f"question: {number}")
        return student

    own = agent(tmp_path, teacher="priced/teacher")
    object.__setattr__(own, "recipes", {"taught": taught})
    done = oneturn.compile(own, recipe="taught", budget=BudgetConfig(cost=2))
    assert done.stopped == "2 US dollars"
    assert done.manifest.spend["cost"] == 2
    assert (
        caplog.text.count("No price of counting/lm is known: its calls don't count towards the limit of 2 US dollars")
        == 1
    )


def test_lm_outside_the_budget_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    judge = CountingLM(tmp_path, name="judging/lm")

    def judged(gold: dspy.Example, pred: Any, trace: Any = None) -> float:
        judge(f"question: {pred.answer}")
        return float(pred.answer == gold.answer)

    own = agent(tmp_path)
    object.__setattr__(own, "metric", judged)
    oneturn.compile(own, recipe="search")
    warnings = [record.getMessage() for record in caplog.records if "aren't counted" in record.getMessage()]
    assert len(warnings) == 1
    assert "calls judging/lm directly" in warnings[0]


class Asynchronous(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.step = dspy.Predict("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        return asyncio.run(self.step.acall(question=question))


def test_asynchronous_calls_are_counted_saved_and_limited(tmp_path: Path):
    lm, calls = CountingLM(tmp_path), itertools.count()
    complete = lm.engine.complete
    lm.engine.complete = lambda request: (next(calls), complete(request))[1]
    waiting = agent(tmp_path, lm, recipe="unchanged")
    object.__setattr__(waiting, "build", Asynchronous)
    with pytest.raises(ConfigError, match="The budget of 5 LM calls was spent"):
        oneturn.compile(waiting, budget=BudgetConfig(lm_calls=5))
    for _ in range(2):
        done = oneturn.compile(waiting)
    assert done.manifest.spend["lm_calls"] == next(calls) >= 8


class Failing(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.step = dspy.Predict("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        raise TypeError("a bug")


@pytest.mark.parametrize("recipe", ["search", "unchanged"])
def test_program_that_fails_before_its_first_call_is_an_error(recipe: str, tmp_path: Path):
    broken = agent(tmp_path)
    object.__setattr__(broken, "build", Failing)
    with pytest.raises(
        ProgramError, match=r"failed on all .* questions before it called its LM, first with TypeError: a bug"
    ):
        oneturn.compile(broken, recipe=recipe)


def test_actual_cost_is_within_the_estimate(tmp_path: Path):
    estimate = estimate_compile(agent(tmp_path))
    assert estimate is not None
    assert answered(tmp_path) == estimate.measured_rows == 5
    done = oneturn.compile(agent(tmp_path))
    spent = done.manifest.spend
    assert estimate.lm_calls[0] <= spent["lm_calls"] <= estimate.lm_calls[1]
    assert estimate.tokens[0] <= spent["prompt_tokens"] + spent["completion_tokens"] <= estimate.tokens[1]
    assert done.manifest.estimate is not None
    assert set(done.manifest.estimate) == {"lm_calls", "tokens", "minutes"}


def test_recipe_without_declared_work_has_no_estimate(tmp_path: Path):
    assert estimate_compile(agent(tmp_path), recipe="unchanged") is None
    assert oneturn.compile(agent(tmp_path), recipe="unchanged").manifest.estimate is None


class RecordingCallback(CompileCallback):
    def __init__(self) -> None:
        self.calls: list[str] = []
        self.candidates: list[Candidate] = []
        self.spent: list[int] = []

    def on_start(self, agent: Any, recipe: str, key: str, estimate: Any) -> None:
        self.calls.append(f"start {recipe}")

    def on_candidate(self, candidate: Candidate) -> None:
        self.candidates.append(candidate)

    def on_usage(self, totals: Usage, seconds: float) -> None:
        self.spent.append(totals.lm_calls)

    def on_end(self, compilation: Any) -> None:
        self.calls.append(f"end {compilation.path.name}")


class FailingCallback(CompileCallback):
    def on_candidate(self, candidate: Candidate) -> None:
        raise ValueError("oh")


def test_callbacks_get_all_events_and_their_failures_are_ignored(tmp_path: Path):
    recorder = RecordingCallback()
    done = oneturn.compile(agent(tmp_path), callbacks=[FailingCallback(), recorder])
    assert recorder.calls == ["start search", "end compiled.json"]
    assert recorder.spent == list(range(1, answered(tmp_path) + 1))
    measured = [(each.number, each.scores, each.spent) for each in done.candidates]
    assert [(each.number, each.scores, each.spent) for each in recorder.candidates] == measured
    assert [candidate.number for candidate in done.candidates] == list(range(len(done.candidates)))
    assert done.candidates[0].score == done.before.score
    assert done.candidates[-1].score == done.after.score
    assert all(len(candidate.scores) == 8 for candidate in done.candidates if candidate.full)
    assert len({str(candidate.program.dump_state()) for candidate in done.candidates}) > 2, "each has its own program"
