"""Evaluating and compiling never run a guarded tool by themselves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dspy
import mlflow
import pandas as pd
import pytest
from dspy.utils.exceptions import LMRateLimitError

import oneturn
from oneturn.agent import Agent
from oneturn.errors import ApprovalRequired, DataError
from oneturn.evaluation._spark_worker import Job
from oneturn.evaluation.approval import approve_all, approve_none
from oneturn.evaluation.run_record import run_record
from oneturn.programs.react import Demonstration, ScriptedTeacher
from oneturn.responses.reply import ApprovalRequest
from oneturn.testing import ScriptedLM, call, finish

KEY = "0123456789abcdef" * 2
ROWS = [{"question": "Refund order 7?", "gold": "refunded"}]
PAID: list[float] = []


def look_up(order: int) -> str:
    """Look an order up."""
    return "It cost 5 euros."


def refund(euros: float) -> str:
    """Give money back."""
    PAID.append(euros)
    return "paid"


def program(*script: Any) -> oneturn.ReAct:
    made = oneturn.ReAct("question -> answer", tools=[look_up, oneturn.tool(refund, approval=True)])
    made.set_lm(ScriptedLM(*script))
    return made


ASKS = (call("look_up", order=7), call("refund", "pay", euros=5))
DONE = lambda request: finish(answer="refused" if "a person refused" in request.text else "refunded")  # noqa: E731


def adapter(*script: Any) -> oneturn.ResponsesAdapter:
    return oneturn.ResponsesAdapter(program(*script), approvals=oneturn.Approvals(KEY))


MODEL = """
import mlflow
from tests.evaluation.test_approval import ASKS, DONE, adapter
mlflow.models.set_model(adapter(*ASKS, DONE))
"""


@contextlib.contextmanager
def target(kind: str, folder: Path) -> Iterator[Any]:
    """The same agent, in the process, served, and as a logged model."""
    if kind == "program":
        yield program(*ASKS, DONE)
    elif kind == "url":
        with oneturn.running_server(adapter(*ASKS, DONE)) as url:
            yield url
    else:
        mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
        (folder / "model.py").write_text(MODEL)
        with mlflow.start_run():
            yield mlflow.pyfunc.log_model(
                name="m", python_model=str(folder / "model.py"), pip_requirements=["oneturn"]
            ).model_uri


KINDS = ("program", "url", "model")


@pytest.fixture(autouse=True)
def _nothing_paid() -> Iterator[None]:
    PAID.clear()
    before = mlflow.get_tracking_uri()
    yield
    mlflow.set_tracking_uri(before)


def waits(gold: Any, pred: Any, trace: Any = None) -> float:
    """Full score for a run that asks for approval of the right call."""
    record = run_record(pred)
    return float(
        record.outcome == "approval_required"
        and record.approvals == ({"name": "refund", "arguments": {"euros": 5}},)
        and [made["name"] for made in record.tool_calls] == ["look_up"]
        and pred.answer is None
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_ends_in_approval_required_which_a_metric_can_score(kind: str, tmp_path: Path):
    with target(kind, tmp_path) as agent:
        row = oneturn.evaluate(agent, ROWS, waits, progress=False).rows.iloc[0]
    assert PAID == []
    assert (row["score"], row["error"]) == (1.0, None)
    assert row["run_approvals"] == [{"name": "refund", "arguments": {"euros": 5}}]
    assert row["prompt_tokens"] > 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_metric_that_reads_the_answer_gives_an_error_that_says_why(kind: str, tmp_path: Path):
    with target(kind, tmp_path) as agent:
        row = oneturn.evaluate(agent, ROWS, lambda gold, pred: len(pred.answer), progress=False).rows.iloc[0]
    assert PAID == []
    assert (row["score"], row["error"]) == (0.0, "approval_required: refund needs a person's approval")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("policy", "answer", "paid"), [(approve_all, "refunded", [5]), (approve_none, "refused", [])])
def test_a_policy_decides(kind: str, policy: Any, answer: str, paid: list[float], tmp_path: Path):
    asked: list[ApprovalRequest] = []

    def approve(request: ApprovalRequest) -> bool:
        asked.append(request)
        return bool(policy(request))

    with target(kind, tmp_path) as agent:
        evaluation = oneturn.evaluate(
            agent, ROWS, lambda gold, pred: pred.answer == answer, progress=False, approve=approve
        )
    row = evaluation.rows.iloc[0]
    assert (row["score"], row["error"], row["pred_answer"]) == (1.0, None, answer)
    assert paid == PAID
    assert [(request.name, request.arguments) for request in asked] == [("refund", '{"euros": 5}')]
    assert row["run_approvals"] == []
    assert [made["name"] for made in row["run_tool_calls"]] == ["look_up", "refund"]


@pytest.mark.parametrize("kind", KINDS[:2])
@pytest.mark.parametrize("verdict", ["no", "false", 0, 1, None])
def test_a_policy_returns_a_boolean(kind: str, verdict: Any, tmp_path: Path):
    with target(kind, tmp_path) as agent:
        rows = oneturn.evaluate(agent, ROWS, waits, progress=False, approve=lambda request: verdict).rows
    assert PAID == []
    assert f"The approval policy returned {verdict!r} for refund; return True or False." in rows["error"][0]


def test_a_row_whose_call_was_approved_is_not_tried_again():
    busy = LMRateLimitError("slow down", model="x")
    rows = oneturn.evaluate(program(*ASKS, busy, *ASKS, DONE), ROWS, waits, progress=False, approve=approve_all).rows
    assert PAID == [5]
    assert rows["tries"][0] == 1
    assert "slow down" in rows["error"][0]


def test_another_policy_is_another_evaluation(tmp_path: Path):
    output = tmp_path / "rows.jsonl"

    def interrupted(gold: Any, pred: Any) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        oneturn.evaluate(program(*ASKS), ROWS, interrupted, progress=False, output=output)
    with pytest.raises(DataError):
        oneturn.evaluate(program(), ROWS, interrupted, progress=False, output=output, approve=approve_all)


# ---- compiling


def _demonstrated(results: dict[int, Any]) -> Any:
    def recipe(student: Any, *, trainset: Any, metric: Any, **_: Any) -> Any:
        calls = [("look_up", {"order": 7}), ("refund", {"euros": 5})]
        teacher = ScriptedTeacher(
            student, trainset, lambda example: Demonstration({"answer": example.gold}, calls, results=results)
        )
        bootstrap = dspy.BootstrapFewShot(metric=metric, max_labeled_demos=0, max_bootstrapped_demos=1)
        return bootstrap.compile(student, teacher=teacher, trainset=trainset)

    return recipe


def compiled(folder: Path, monkeypatch: pytest.MonkeyPatch, recipe: Any, **options: Any) -> Any:
    examples = [dspy.Example(**row).with_inputs("question") for row in ROWS]

    def reply(request: Any) -> Any:
        last = request.messages[-1]["content"]
        return DONE(request) if last == "paid" or "refused" in last else ASKS[1]

    script = ScriptedLM(*[reply] * 20)
    monkeypatch.setattr("oneturn.agent.build_lm", lambda config: script)
    agent = Agent(
        name="desk",
        config=oneturn.AgentConfig.read({"compiled": "compiled.json", "compile": {"recipe": "own"}}),
        build=lambda: oneturn.ReAct(
            "question -> answer", tools=[look_up, oneturn.tool(refund, approval=True)], thoughts=False
        ),
        metric=lambda gold, pred, trace=None: float(pred.get("answer") == gold.gold),
        examples=lambda split: examples,
        recipes={"own": recipe},
        root=folder,
        code_paths=(),
        example_questions=("?",),
    )
    return oneturn.compile(agent, **options)


def test_a_compile_runs_no_guarded_tool_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    done = compiled(tmp_path, monkeypatch, _demonstrated({}))
    assert PAID == []
    assert done.program.step.demos == [], "without its result, the demonstration is no demo"
    assert done.after.rows["run_approvals"][0] == [{"name": "refund", "arguments": {"euros": 5}}]


def test_a_demonstration_carries_the_recorded_result_of_a_guarded_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    done = compiled(tmp_path, monkeypatch, _demonstrated({1: "paid before"}))
    assert PAID == []
    (demo,) = done.program.step.demos
    assert [turn["observation"] for turn in demo.trajectory] == ["It cost 5 euros.", "paid before"]


def test_a_compile_s_policy_approves_the_calls_of_students_and_teachers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    done = compiled(tmp_path, monkeypatch, _demonstrated({}), approve=approve_all)
    assert PAID == [5, 5, 5], "before, teacher, after"
    (demo,) = done.program.step.demos
    assert demo.trajectory[-1]["observation"] == "paid"
    assert done.after.score == 1.0


def test_a_demonstration_s_refused_call_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    done = compiled(tmp_path, monkeypatch, _demonstrated({}), approve=approve_none)
    assert PAID == []
    (demo,) = done.program.step.demos
    assert demo.trajectory[-1]["observation"] == "Error: a person refused this call"


def test_a_teacher_that_is_called_directly_raises():
    student = program()
    example = dspy.Example(**ROWS[0]).with_inputs("question")
    teacher = ScriptedTeacher(
        student, [example], lambda each: Demonstration({"answer": "x"}, [("refund", {"euros": 5})])
    )
    with pytest.raises(ApprovalRequired, match="refund needs a person's approval") as raised:
        teacher(question=example.question)
    assert (raised.value.code, raised.value.name, raised.value.arguments) == (
        "approval_required",
        "refund",
        {"euros": 5},
    )
    assert PAID == []


@pytest.mark.parametrize(
    ("policy", "answer", "paid"), [(approve_all, "refunded", [5.0]), (approve_none, "refused", [])]
)
def test_policy_reaches_the_workers_of_spark(policy: Any, answer: str, paid: list[float]):
    PAID.clear()
    job = Job(
        f"policy {answer}",
        lambda: program(*ASKS, DONE),
        {"score": lambda gold, pred, trace=None: pred.answer == answer},
        ("question",),
        1,
        {"pred_answer": "string", "score": "double", "error": "string"},
        approve=policy,
    )
    (rows,) = job(iter([pd.DataFrame(ROWS)]))
    assert rows[["pred_answer", "score", "error"]].to_dict("records") == [
        {"pred_answer": answer, "score": 1.0, "error": None}
    ]
    assert paid == PAID
