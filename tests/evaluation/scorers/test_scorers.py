"""What each scorer says of which tools were called, what was found and what is cited."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle
import dspy
import mlflow
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oneturn
from oneturn.deployment import registry as versions
from oneturn.errors import DataError
from oneturn.evaluation import scorers
from oneturn.evaluation.run_record import RunRecord, with_record
from tests.evaluation.scorers.desk import MODEL, ROWS, desk, search

ALL = [
    scorers.tool_use(),
    scorers.tool_order(),
    scorers.tool_arguments(),
    scorers.forbidden_tools(["add"]),
    scorers.retrieval_recall(),
    scorers.retrieval_precision(),
    scorers.retrieval_mrr(),
    scorers.citations(),
    scorers.citations_read(),
    scorers.citation_format(r"[a-z]+"),
]
EXPECTED = {
    "tool_use": [1.0, 0.0],
    "tool_order": [1.0, 0.0],
    "tool_arguments": [1.0, 0.0],
    "forbidden_tools": [0.0, 1.0],
    "retrieval_recall": [1.0, 0.0],
    "retrieval_precision": [0.5, 0.0],
    "retrieval_mrr": [1.0, 0.0],
    "citation_match": [1.0, 0.0],
    "citations_read": [1.0, 1.0],
    "citation_format": [1.0, 1.0],
}


def check(target: Any) -> None:
    found = oneturn.evaluate(target, ROWS, ALL, inputs=["question"], progress=False)
    assert found.rows["error"].isna().all()
    assert {name: found.rows[name].tolist() for name in EXPECTED} == EXPECTED


def test_a_program_is_scored():
    check(desk())


def test_a_served_agent_is_scored_alike():
    with oneturn.running_server(oneturn.ResponsesAdapter(desk())) as url:
        check(url)


def test_a_logged_model_is_scored_alike(tmp_path: Path, traced: None):
    (tmp_path / "model.py").write_text(MODEL)
    with mlflow.start_run():
        info = mlflow.pyfunc.log_model(
            name="agent", python_model=str(tmp_path / "model.py"), pip_requirements=["mlflow"], input_example=None
        )
    check(info.model_uri)


def test_dspy_itself_takes_them_as_metrics():
    examples = [dspy.Example(**row).with_inputs("question") for row in ROWS]
    found = dspy.Evaluate(devset=examples, metric=scorers.retrieval_recall(), num_threads=1)(desk())
    assert found.score == 50.0
    prediction = desk()(question="What do two months cost?")
    metric = scorers.tool_use()
    assert metric(examples[0], prediction, []) is True  # as a bootstrapping optimizer asks
    assert metric(examples[1], prediction, []) is False
    assert metric(examples[1], prediction, [], "step", []).feedback == "Don't call add: this doesn't need it."


def made(*calls: tuple[str, dict[str, Any]], found: tuple[str, ...] = (), cites: tuple[str, ...] = ()) -> Any:
    sources = [{"id": each, "title": each.title(), "url": f"docs/{each}"} for each in found]
    feedback = [{"name": name, "arguments": arguments, "output": "", "sources": sources} for name, arguments in calls]
    return with_record(dspy.Prediction(citations=list(cites)), RunRecord(tuple(feedback)))


def score(scorer: scorers.Scorer, prediction: Any, **labels: Any) -> tuple[float | None, str]:
    found = scorer(dspy.Example(**labels), prediction)
    return found.score, found.feedback


A, B = ("a", {"x": 1, "y": 2}), ("b", {})


@pytest.mark.parametrize(
    ("measure", "wanted", "expected"),
    [
        ("f1", ["a"], 2 / 3),
        ("precision", ["a"], 0.5),
        ("recall", ["a"], 1.0),
        ("recall", ["a", "c"], 0.5),
        ("exact", ["a"], 0.0),
        ("exact", ["b", "a"], 1.0),
        ("precision", [], 0.0),
        ("recall", [], 1.0),
    ],
)
def test_tools_as_a_set(measure: Any, wanted: list[str], expected: float):
    found, _ = score(scorers.tool_use(measure=measure), made(A, B, A), expected_tools=wanted)
    assert found == pytest.approx(expected)


def test_no_tool_call_is_right_if_none_is_expected():
    assert score(scorers.tool_use(), made(), expected_tools=[]) == (1.0, "The right tools were called.")
    assert score(scorers.tool_use(), made(B), expected_tools=["a"]) == (
        0.0,
        "Call a, which this needs. Don't call b: this doesn't need it.",
    )


@pytest.mark.parametrize(("wanted", "expected"), [("ab", 1.0), ("ba", 0.5), ("aab", 2 / 3), ("", 0.0), ("c", 0.0)])
def test_the_order_of_tools(wanted: str, expected: float):
    found, feedback = score(scorers.tool_order(), made(A, B), expected_tools=list(wanted))
    assert found == pytest.approx(expected)
    assert (expected == 1.0) == (feedback == "The tools were called in the right order.")


@given(st.lists(st.sampled_from("abc")), st.lists(st.sampled_from("abc")))
def test_an_order_scores_one_only_if_it_is_the_same(called: list[str], wanted: list[str]):
    found, _ = score(scorers.tool_order(), made(*((name, {}) for name in called)), expected_tools=wanted)
    assert found is not None
    assert 0 <= found <= 1
    assert (found == 1) == (called == wanted)


def near(wanted: Any, given: Any) -> bool:
    return abs(float(wanted["x"]) - float(given["x"])) < 1


@pytest.mark.parametrize(
    ("match", "arguments", "expected"),
    [
        ("exact", {"x": 1, "y": 2}, 1.0),
        ("exact", {"x": 1}, 0.0),
        ("subset", {"x": 1}, 1.0),
        ("subset", {"x": 3}, 0.0),
        (near, {"x": 1.5}, 1.0),
        (near, {"x": 2.5}, 0.0),
    ],
)
def test_the_arguments_of_tools(match: Any, arguments: dict[str, Any], expected: float):
    wanted = [{"name": "a", "arguments": arguments}]
    found, feedback = score(scorers.tool_arguments(match=match), made(B, A), expected_tool_calls=wanted)
    assert found == expected
    assert ("Expected calls that were not made: a(x=" in feedback) == (expected == 0)


def test_one_call_meets_one_expected_call():
    wanted = [{"name": "a", "arguments": {"x": 1}}, {"name": "a", "arguments": {}}]
    calls = made(("a", {"x": 1}))
    assert score(scorers.tool_arguments(match="subset"), calls, expected_tool_calls=wanted)[0] == 0.5
    both = made(("a", {"x": 1}), ("a", {}))
    assert score(scorers.tool_arguments(match="subset"), both, expected_tool_calls=wanted)[0] == 1.0


def test_an_expected_call_without_a_name_is_refused():
    with pytest.raises(DataError, match="is not an expected tool call"):
        score(scorers.tool_arguments(), made(), expected_tool_calls=["a"])


@pytest.mark.parametrize(
    ("scorer", "k", "expected"),
    [
        (scorers.retrieval_recall, None, 2 / 3),
        (scorers.retrieval_recall, 2, 1 / 3),
        (scorers.retrieval_precision, None, 2 / 4),
        (scorers.retrieval_precision, 1, 0.0),
        (scorers.retrieval_mrr, None, 1 / 2),
        (scorers.retrieval_mrr, 1, 0.0),
    ],
)
def test_what_was_found(scorer: Callable[..., scorers.Scorer], k: int | None, expected: float):
    prediction = made(B, B, found=("no", "one", "two", "not"))
    found, feedback = score(scorer(k=k), prediction, expected_sources=["one", "docs/two", "three"])
    assert found == pytest.approx(expected)
    assert "three" in feedback


def test_what_is_cited():
    prediction = made(B, found=("one",), cites=("one", "two", "two", "[3]"))
    assert score(scorers.citations(), prediction, citations=["one", "four"]) == (
        pytest.approx(2 / 5),
        "Cite four: the answer is based on it. Don't cite two, [3]: the answer isn't based on it.",
    )
    assert score(scorers.citations(measure="precision"), prediction, citations=["one"])[0] == pytest.approx(1 / 3)
    assert score(scorers.citations(measure="recall"), prediction, citations=["one"])[0] == 1.0
    assert score(scorers.citations(normal=lambda text: text.strip("[]")), prediction, citations="3")[0] == 0.5
    read, feedback = score(scorers.citations_read(), prediction)
    assert read == pytest.approx(1 / 3)
    assert feedback == "You cite two, [3], which no tool returned; cite only sources you read."
    form, feedback = score(scorers.citation_format("[a-z]+"), prediction)
    assert form == 0.5
    assert feedback == "These don't match [a-z]+: [3]. Cited more than once: two."


def test_an_example_without_the_label_is_not_judged_and_the_column_says_so():
    rows = [{"question": "?", "expected_tools": None}, {"question": "!", "expected_tools": []}]
    found = oneturn.evaluate(
        desk(), rows, [scorers.citations_read(), scorers.tool_use()], inputs=["question"], progress=False
    )
    assert found.rows["tool_use"].isna().tolist() == [True, False]
    assert found.rows["tool_use_feedback"][0] == (
        "Not judged: the example has no 'expected_tools' to judge by; its fields are question, expected_tools."
    )


def test_a_score_that_cannot_be_had_is_its_rows_error():
    found = oneturn.evaluate(desk(), ROWS, scorers.tool_use("missing"), inputs=["question"], progress=False)
    assert found.rows["error"][0].startswith("DataError: score returned no score: Not judged: the example has no")


def test_a_changed_setting_is_another_evaluation(tmp_path: Path):
    class Stopped(dspy.Module):
        def forward(self, question: str) -> dspy.Prediction:
            raise KeyboardInterrupt

    def evaluate(k: int) -> None:
        metric = scorers.retrieval_recall(k=k)
        oneturn.evaluate(Stopped(), ROWS, metric, inputs=["question"], output=tmp_path / "rows.jsonl", progress=False)

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            evaluate(1)
    with pytest.raises(DataError, match="belongs to another evaluation"):
        evaluate(2)


def test_another_normal_form_is_another_scorer():
    for make in (scorers.citations, scorers.citations_read):
        assert make(normal=str.lower).key == make(normal=str.lower).key != make().key


def test_they_travel_to_other_processes():
    for metric in [*ALL, scorers.groundedness("openai:/m"), scorers.relevance("openai:/m")]:
        copy = cloudpickle.loads(cloudpickle.dumps(metric))
        assert (copy.name, copy.key) == (metric.name, metric.key)
    assert cloudpickle.loads(cloudpickle.dumps(ALL[0]))(dspy.Example(expected_tools=["b"]), made(B)).score == 1.0


def test_a_version_that_answered_in_a_process_of_its_own_is_scored_by_what_it_did():
    answered = {"error": None, "pred_answer": "so", "run_tool_calls": [{"name": "a", "arguments": {}, "output": ""}]}
    agent: Any = SimpleNamespace(metric=scorers.tool_use())
    row = versions._row(agent, dspy.Example(question="?", expected_tools=["a"]).with_inputs("question"), answered, {})
    assert (row["score"], row["error"]) == (1.0, None)


def test_the_trajectory_of_dspy_s_own_react_is_read():
    trajectory = {
        "thought_0": "look",
        "tool_name_0": "search",
        "tool_args_0": {"query": "fees"},
        "observation_0": search("monthly fee"),
        "tool_name_1": "finish",
        "tool_args_1": {},
        "observation_1": "Completed.",
    }
    prediction = dspy.Prediction(answer="4 euros", trajectory=trajectory)
    assert score(scorers.tool_use("tools"), prediction, tools=["search"])[0] == 1.0
    assert score(scorers.retrieval_mrr("sources"), prediction, sources=["fees"])[0] == 1.0
