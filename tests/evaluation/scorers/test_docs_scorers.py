"""The examples of docs/scorers.md do what the page says."""

from __future__ import annotations

from typing import Any

import mlflow
import pytest

from oneturn.evaluation import scorers
from tests.evaluation.scorers.desk import ROWS, desk
from tests.evaluation.scorers.judging import judging
from tests.evaluation.scorers.test_judges import LABELLED, agrees
from tests.test_docs_examples import examples


@pytest.fixture(scope="module")
def page() -> list[dict[str, Any]]:
    return examples("scorers.md")


def test_a_program_is_evaluated(page: list[dict[str, Any]]):
    rows = page[0]["evaluated"](desk(), ROWS)
    assert rows["score"].tolist() == rows["citation_match"].tolist() == rows["retrieval_recall"].tolist() == [1.0, 0.0]


def test_a_metric_of_ones_own_reads_the_calls(page: list[dict[str, Any]]):
    found = page[1]["looks_up_once"](None, desk()(question="What do two months cost?"))
    assert (found.score, found.feedback) == (1.0, "You searched 1 times; once is enough.")


def test_a_judge_is_calibrated(page: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with judging(agrees) as server:
        monkeypatch.setenv("OPENAI_API_BASE", server.url)
        trusted, wrong = page[2]["calibrated"](LABELLED)
    assert trusted
    assert wrong["question"].tolist() == ["0?", "1?"]


def test_mlflow_evaluates(page: list[dict[str, Any]], traced: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_GENAI_EVAL_SKIP_TRACE_VALIDATION", "true")
    monkeypatch.setenv("MLFLOW_GENAI_EVAL_MAX_WORKERS", "1")
    mlflow.dspy.autolog(disable=True)
    found = page[3]["evaluated_by_mlflow"](desk(), ROWS, [scorers.citations(), scorers.citations_read()])
    assert found.metrics["citation_match/mean"] == 0.5
    assert found.metrics["citations_read/mean"] == 1.0
