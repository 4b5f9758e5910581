"""Feedback of the page: assessments on traces of this server, from its own page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import mlflow
import pytest
from starlette.testclient import TestClient

from oneturn.serving.app import application
from oneturn.serving.page.traces import trace_url_template
from oneturn.testing import finish
from tests.serving.page.agents import handbook_agent

OWN = {"Origin": "http://testserver", "Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def server(traced: None) -> Iterator[TestClient]:
    mlflow.set_experiment("feedback")
    answer = finish(answer="5 euros", citations=[], answerable=True)
    with TestClient(application(handbook_agent(*[answer] * 3), name="desk")) as client:
        yield client


def trace_of(server: TestClient) -> str:
    headers = {"x-mlflow-return-trace-id": "true"}
    return str(server.post("/v1/responses", json={"input": "Fees?"}, headers=headers).json()["metadata"]["trace_id"])


def assessments(trace_id: str) -> dict[str, Any]:
    trace = mlflow.get_trace(trace_id)
    assert trace is not None
    return {each.name: each for each in trace.info.assessments}


def test_a_judgement_and_a_correction_are_assessments_of_a_person(server: TestClient):
    trace_id = trace_of(server)
    expected = {"answer": "4 euros", "citations": ["fees"], "answerable": True}
    body = {"trace_id": trace_id, "correct": False, "comment": "That was last year.", "expected": expected}
    reply = server.post("/agent/feedback", json=body, headers={**OWN, "X-Forwarded-Email": "ann@example.com"})
    assert reply.json() == {"trace_id": trace_id, "assessments": 4}
    made = assessments(trace_id)
    assert {name: made[name].expectation.value for name in expected} == expected
    assert (made["correct"].feedback.value, made["correct"].rationale) == (False, "That was last year.")
    assert {each.source.source_type for each in made.values()} == {"HUMAN"}
    assert {each.source.source_id for each in made.values()} == {"ann@example.com"}


def test_a_comment_alone(server: TestClient):
    trace_id = trace_of(server)
    assert server.post("/agent/feedback", json={"trace_id": trace_id, "comment": "Hm."}, headers=OWN).status_code == 200
    made = assessments(trace_id)
    assert {name: each.feedback.value for name, each in made.items()} == {"comment": "Hm."}


def test_only_traces_of_this_agent_s_servers(server: TestClient):
    with mlflow.start_span("another program") as span:
        pass
    for trace_id in (span.trace_id, "tr-0000"):
        reply = server.post("/agent/feedback", json={"trace_id": trace_id, "correct": True}, headers=OWN)
        assert (reply.status_code, reply.json()["error"]["param"]) == (404, "trace_id")
    assert assessments(span.trace_id) == {}
    other = TestClient(application(handbook_agent(), name="another"))
    reply = other.post("/agent/feedback", json={"trace_id": trace_of(server), "correct": True}, headers=OWN)
    assert reply.status_code == 404


def test_a_tracking_server_that_does_not_answer_is_no_unknown_trace(
    server: TestClient, monkeypatch: pytest.MonkeyPatch
):
    trace_id = trace_of(server)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.flush_trace_async_logging()
    mlflow.set_tracking_uri("http://127.0.0.1:9")
    reply = server.post("/agent/feedback", json={"trace_id": trace_id, "correct": True}, headers=OWN)
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "server_error")
    assert "The tracking server doesn't answer" in reply.json()["error"]["message"]


def test_another_replica_takes_the_feedback(server: TestClient):
    replica = TestClient(application(handbook_agent(), name="desk"))
    trace_id = trace_of(server)
    assert replica.post("/agent/feedback", json={"trace_id": trace_id, "correct": True}, headers=OWN).status_code == 200
    assert assessments(trace_id)["correct"].feedback.value is True


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://testserver", "Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
    ],
)
def test_a_page_of_another_site_gives_no_feedback(server: TestClient, headers: dict[str, str]):
    trace_id = trace_of(server)
    reply = server.post("/agent/feedback", json={"trace_id": trace_id, "correct": True}, headers=headers)
    assert (reply.status_code, reply.json()["error"]["code"]) == (403, "origin_not_allowed")
    assert assessments(trace_id) == {}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"correct": True}, "trace_id"),
        ({"trace_id": "tr-1", "correct": "yes"}, "correct"),
        ({"trace_id": "tr-1", "expected": {"colour": "red"}}, "expected.colour"),
        ({"trace_id": "tr-1", "expected": {"answerable": "perhaps"}}, "expected.answerable"),
        ({"trace_id": "tr-1", "other": 1}, "other"),
        ({"trace_id": "tr-1"}, ""),
    ],
)
def test_a_refused_body_names_its_field(body: dict[str, Any], param: str):
    server = TestClient(application(handbook_agent()))
    reply = server.post("/agent/feedback", json=body, headers=OWN)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    ("uri", "url"),
    [
        (
            "http://user:secret@mlflow.example:5000/",
            "http://mlflow.example:5000/#/experiments/7/traces?selectedEvaluationId={trace_id}",
        ),
        ("sqlite:///x.db", None),
    ],
)
def test_where_mlflow_shows_a_trace(monkeypatch: pytest.MonkeyPatch, uri: str, url: str | None):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "7")
    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: uri)
    assert trace_url_template() == url


def test_where_databricks_shows_a_trace(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "7")
    monkeypatch.setenv("DATABRICKS_HOST", "my.workspace.example")
    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: "databricks")
    assert trace_url_template() == (
        "https://my.workspace.example/ml/experiments/7/traces?selectedEvaluationId={trace_id}"
    )
