"""A compile in MLflow: a parent run with a child run per candidate, in a real tracking store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import dspy
import mlflow
import pytest
from dspy.lm15 import AuthError
from mlflow import MlflowClient

import oneturn
from oneturn.compilation.mlflow import KEY, MlflowRuns
from oneturn.config import BudgetConfig
from oneturn.errors import LMUnavailableError, ProgramError
from tests.compilation.agent import agent
from tests.compilation.test_outage import FailingLM

pytestmark = pytest.mark.usefixtures("traced")


def runs(tracking: dict[str, Any], condition: str) -> list[Any]:
    experiment = mlflow.get_experiment_by_name(tracking["experiment"])
    assert experiment is not None
    return list(MlflowClient().search_runs([experiment.experiment_id], condition, order_by=["attributes.start_time"]))


@pytest.fixture
def tracking(_trace_store: str) -> dict[str, Any]:
    return {"tracking_uri": _trace_store, "experiment": "compiles"}


def test_compile_is_a_run_with_a_child_run_per_candidate(tmp_path: Path, tracking: dict[str, Any]):
    listener = MlflowRuns()
    done = oneturn.compile(agent(tmp_path, mlflow=tracking), callbacks=[listener])
    client = MlflowClient()
    parent = client.get_run(listener.run_id)
    assert parent.info.status == "FINISHED"
    assert parent.data.params["recipe"] == "search"
    assert parent.data.metrics["after_score"] == done.after.score
    assert parent.data.metrics["spent_lm_calls"] == done.manifest.spend["lm_calls"]
    points = client.get_metric_history(listener.run_id, "score")
    full = [candidate for candidate in done.candidates if candidate.full]
    assert [(point.step, point.value) for point in points] == [
        (candidate.number, candidate.score) for candidate in full
    ]
    children = runs(tracking, f"tags.`mlflow.parentRunId` = '{listener.run_id}'")
    assert len(children) == len(done.candidates)
    assert {child.data.tags["mlflow.runName"] for child in children} >= {"uncompiled", "candidate 1"}
    prompts = client.download_artifacts(children[-1].info.run_id, "prompts.md", str(tmp_path))
    assert "# step" in Path(prompts).read_text()
    paths = {artifact.path for artifact in client.list_artifacts(listener.run_id)}
    plots = {"front.png", "score_against_spend.png"}
    assert paths == {"compiled", "estimate.json", "front.json", "prompts.md", "rows"} | plots
    assert parent.data.tags["oneturn.compiled_candidate"] == str(done.kept)
    tokens = {child.data.tags["oneturn.candidate"]: child.data.metrics.get("tokens_a_question") for child in children}
    assert all(tokens[str(each.number)] == each.per_question("tokens") for each in done.candidates)
    points = {
        child.data.tags["oneturn.candidate"] for child in children if child.data.tags.get("oneturn.front") == "true"
    }
    assert points == {str(point.number) for point in done.front.points}
    assert {tag.value for dataset in parent.inputs.dataset_inputs for tag in dataset.tags} == {"train", "dev"}


def _is_point(tags: dict[str, str]) -> bool:
    return tags.get("oneturn.front") == "true"


def test_wrong_rows_are_traced_and_linked(tmp_path: Path, tracking: dict[str, Any]):
    listener = MlflowRuns()
    done = oneturn.compile(agent(tmp_path, mlflow=tracking), recipe="unchanged", callbacks=[listener])
    wrong = done.after.rows[done.after.rows["score"] < 1]
    calls = done.manifest.spend["lm_calls"]
    traces = mlflow.search_traces(run_id=listener.run_id, return_type="list")
    assert len(traces) == len(wrong) > 0
    questions = {trace.data.spans[0].inputs["question"] for trace in traces}
    assert questions == set(wrong["question"])
    assert len((tmp_path / "answered.txt").read_text().splitlines()) == calls, "known answers are replayed"


def test_resumed_compile_continues_the_same_run(tmp_path: Path, tracking: dict[str, Any]):
    first, second = MlflowRuns(), MlflowRuns()
    oneturn.compile(agent(tmp_path, mlflow=tracking), budget=BudgetConfig(lm_calls=20), callbacks=[first])
    done = oneturn.compile(agent(tmp_path, mlflow=tracking), callbacks=[second])
    assert first.run_id == second.run_id
    key = MlflowClient().get_run(first.run_id).data.tags[KEY]
    assert len(runs(tracking, f"tags.`{KEY}` = '{key}'")) == 1
    children = runs(tracking, f"tags.`mlflow.parentRunId` = '{first.run_id}'")
    assert len(children) == len(done.candidates)
    points = MlflowClient().get_metric_history(first.run_id, "lm_calls")
    full = [candidate for candidate in done.candidates if candidate.full]
    assert [(point.step, point.value) for point in points] == [(each.number, each.spent.lm_calls) for each in full]


@pytest.mark.parametrize("written", ["log_batch", "log_text", "set_terminated", "log_inputs"])
def test_incomplete_entries_of_a_killed_start_are_completed(
    written: str, tmp_path: Path, tracking: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as killed:
        killed.setattr(MlflowClient, written, interrupt)
        killed.setattr(MlflowRuns, "on_interrupted", lambda *_: None)  # a killed process doesn't call it
        with pytest.raises(KeyboardInterrupt):
            oneturn.compile(agent(tmp_path, mlflow=tracking), callbacks=[MlflowRuns()])
    listener = MlflowRuns()
    done = oneturn.compile(agent(tmp_path, mlflow=tracking), callbacks=[listener])
    parent = MlflowClient().get_run(listener.run_id)
    assert parent.data.params["recipe"] == "search"
    assert len(parent.inputs.dataset_inputs) == 2
    children = runs(tracking, f"tags.`mlflow.parentRunId` = '{listener.run_id}'")
    assert len(children) == len(done.candidates)
    assert {child.info.status for child in children} == {"FINISHED"}
    scores = {int(child.data.tags["oneturn.candidate"]): child.data.metrics["score"] for child in children}
    assert scores == {candidate.number: candidate.score for candidate in done.candidates}
    for child in children:
        assert [artifact.path for artifact in MlflowClient().list_artifacts(child.info.run_id)] == ["prompts.md"]


def interrupt(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), "KILLED"), (AuthError("no key"), "FAILED")])
def test_interrupted_compile_is_not_shown_as_running(
    error: BaseException, status: str, tmp_path: Path, tracking: dict[str, Any]
):
    listener = MlflowRuns()
    with pytest.raises((KeyboardInterrupt, LMUnavailableError)):
        oneturn.compile(agent(tmp_path, FailingLM(tmp_path, 20, error), mlflow=tracking), callbacks=[listener])
    assert MlflowClient().get_run(listener.run_id).info.status == status
    oneturn.compile(agent(tmp_path, mlflow=tracking), callbacks=[MlflowRuns()])
    assert MlflowClient().get_run(listener.run_id).info.status == "FINISHED"


def test_changed_metric_updates_the_score_of_a_candidate(tmp_path: Path, tracking: dict[str, Any]):
    oneturn.compile(agent(tmp_path, mlflow=tracking), recipe="unchanged", callbacks=[MlflowRuns()])
    strict = agent(tmp_path, mlflow=tracking)
    object.__setattr__(strict, "metric", lambda gold, pred, trace=None: 0.0)
    listener = MlflowRuns()
    oneturn.compile(strict, recipe="unchanged", callbacks=[listener])
    children = runs(tracking, f"tags.`mlflow.parentRunId` = '{listener.run_id}'")
    assert {child.data.metrics["score"] for child in children} == {0.0}


def test_prompts_with_a_secret_are_not_logged(tmp_path: Path, tracking: dict[str, Any]):
    secret = "dapi" + "0123456789abcdef" * 2
    student = oneturn.ReAct(dspy.Signature("question -> answer", f"Use {secret}."), tools=[], thoughts=False)
    leaking = replace(agent(tmp_path, mlflow=tracking), build=lambda: student)
    listener = MlflowRuns()
    with pytest.raises(ProgramError, match="looks like a secret"):
        oneturn.compile(leaking, recipe="unchanged", callbacks=[listener])
    assert runs(tracking, f"tags.`mlflow.parentRunId` = '{listener.run_id}'") == []
    assert MlflowClient().list_artifacts(listener.run_id) == []


@pytest.mark.parametrize(
    ("tracking_uri", "reason"),
    [
        ("sqlite:///{}/file/mlflow.db", "FileExistsError: "),
        ("http://127.0.0.1:9", "The tracking server http://127.0.0.1:9 can't be reached: Connection refused."),
    ],
)
def test_unavailable_tracking_store_does_not_end_the_compile(
    tracking_uri: str, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "file").touch()
    away = {"tracking_uri": tracking_uri.format(tmp_path), "experiment": "x"}
    done = oneturn.compile(agent(tmp_path, mlflow=away), callbacks=[MlflowRuns()])
    assert done.path.exists()
    (line,) = (record for record in caplog.records if "on_start failed; the compile continues" in record.message)
    assert reason in line.message
    assert line.exc_info is None
    assert "\n" not in line.message


def test_plot_and_table_show_each_candidate(tmp_path: Path):
    done = oneturn.compile(agent(tmp_path))
    figure = done.plot()
    assert figure.axes[0].get_title(loc="left").startswith(f"From {done.before.score:.0%} to {done.after.score:.0%}")
    assert len(done.table()) == len(done.candidates)
    assert list(done.table())[:3] == ["candidate", "score", "rows"]


@pytest.mark.parametrize("calls", [1000, 30])
def test_plot_marks_the_saved_program(calls: int, tmp_path: Path):
    graded = agent(tmp_path)
    thirds = {
        "dev-1": 0.1,
        "dev-2": 0.7,
        "dev-3": 1 / 3,
        "dev-4": 0.85,
        "dev-5": 0.6,
    }  # means differ in their last digit
    object.__setattr__(graded, "metric", lambda gold, pred, trace=None: thirds.get(pred.answer, 0.2))
    done = oneturn.compile(graded, budget=BudgetConfig(lm_calls=calls))
    assert (done.stopped is not None) == (calls == 30)
    kept = done.candidates[done.kept]
    assert kept.program.dump_state() == done.program.dump_state()
    assert kept.score == pytest.approx(done.after.score)
    ring = done.plot().axes[0].lines[-1]
    assert (ring.get_xdata()[0], ring.get_ydata()[0]) == (kept.spent.lm_calls, kept.score)
