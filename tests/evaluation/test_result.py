"""An evaluation has one row an example, in order, whatever happens to it."""

from __future__ import annotations

import threading
from typing import Any

import dspy
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oneturn
from oneturn.errors import DataError
from oneturn.evaluation import to_agent_evaluation
from oneturn.evaluation.report.figures import figures
from oneturn.evaluation.statistics import interval
from oneturn.testing import ScriptedLM, ScriptedRequest, finish

COLUMNS = {
    "score",
    "feedback",
    "lm_calls",
    "cost",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "seconds",
    "trace_id",
    "tries",
    "error",
}
CALLED = {"run_tool_calls", "run_sources", "run_approvals"}


def examples(*questions: str, **labels: Any) -> list[dspy.Example]:
    return [dspy.Example(question=q, gold=q.upper(), **labels).with_inputs("question") for q in questions]


class Shout(dspy.Module):
    """Answers in capitals, but for what it doesn't like."""

    def forward(self, question: str) -> dspy.Prediction:
        if question == "bad":
            raise ValueError("I don't like that")
        return dspy.Prediction(answer=question.upper(), extra={"length": len(question)})


class Never(dspy.Module):
    """Must not be asked."""

    def forward(self, question: str) -> dspy.Prediction:
        raise AssertionError("asked")


def values(column: Any) -> list[Any]:
    """A column's values, with None for what is missing (pandas tells it as None or NaN)."""
    return [None if pd.isna(value) else value for value in column]


def right(gold: dspy.Example, pred: dspy.Prediction, trace: object = None) -> float:
    return float(gold.gold == pred.answer)


def evaluate(program: Any, rows: list[dspy.Example], metric: Any = right, **options: Any) -> Any:
    return oneturn.evaluate(program, rows, metric, progress=False, **options)


def test_a_row_tells_the_labels_the_outputs_the_score_and_the_cost():
    rows = evaluate(Shout(), examples("a", category="letter")).rows
    assert {"question", "gold", "category", "pred_answer", "pred_extra"} | COLUMNS | CALLED == set(rows.columns)
    assert rows.loc[0, ["pred_answer", "score", "error", "category"]].tolist() == ["A", 1.0, None, "letter"]
    assert rows.loc[0, "pred_extra"] == {"length": 1}


def test_a_row_that_fails_stays_with_its_reason_and_counts_as_wrong():
    found = evaluate(Shout(), examples("a", "bad", "c"))
    assert found.rows["score"].tolist() == [1.0, 0.0, 1.0]
    assert values(found.rows["error"]) == [None, "ValueError: I don't like that", None]
    assert found.rows["feedback"][1] == "ValueError: I don't like that"
    assert found.score == pytest.approx(2 / 3)
    assert found.summary()["errors"] == 1.0


def test_a_metric_that_fails_costs_its_row_only():
    def picky(gold: dspy.Example, pred: dspy.Prediction, trace: object = None) -> float:
        return 1 / (gold.gold != "B")

    rows = evaluate(Shout(), examples("a", "b"), picky).rows
    assert values(rows["error"]) == [None, "ZeroDivisionError: division by zero"]
    assert rows["pred_answer"].tolist() == ["A", "B"]
    assert rows["score"].tolist() == [1.0, 0.0]


@pytest.mark.parametrize("name", ["score", "feedback", "tries", "cost", "run_sources", "pred_answer", "cites_feedback"])
def test_a_label_with_the_name_of_a_result_is_refused_before_the_first_call(name: str):
    with pytest.raises(DataError, match=f"The column '{name}' of the data has the name of a result column: rename"):
        evaluate(Never(), examples("a", **{name: 5.0}), {"score": right, "cites": right})


@pytest.mark.parametrize("name", ["error", "cost", "feedback", "seconds", "run_sources", "repeat", "pred_answer"])
def test_a_metric_with_the_name_of_a_result_is_refused(name: str):
    for metrics in ({"main": right, name: right}, {name: right}):
        with pytest.raises(DataError, match=f"The metric '{name}' has the name of a result column"):
            evaluate(Never(), examples("a"), metrics)
    with pytest.raises(DataError, match="Only the first metric may be called 'score'"):
        evaluate(Never(), examples("a"), {"main": right, "score": right})


def test_a_metric_with_the_name_of_a_label_is_refused():
    with pytest.raises(DataError, match="The column 'category' of the data has the name of a result column"):
        evaluate(Never(), examples("a", category="letter"), {"score": right, "category": right})


def test_an_input_may_have_the_name_of_a_figure():
    class Sentiment(dspy.Module):
        def forward(self, feedback: str) -> dspy.Prediction:
            return dspy.Prediction(answer=feedback.upper())

    rows = [{"feedback": "good"}]
    found = evaluate(Sentiment(), rows, lambda gold, pred: gold.feedback == "good", inputs=["feedback"]).rows
    assert (found["score"][0], found["pred_answer"][0], values(found["feedback"])) == (1.0, "GOOD", [None])


def test_an_output_may_have_the_name_of_a_figure():
    class Graded(dspy.Module):
        signature = dspy.Signature("essay -> score: int, feedback: str")

        def forward(self, essay: str) -> dspy.Prediction:
            return dspy.Prediction(score=3, feedback="good")

    rows = [dspy.Example(essay="a", score=3, feedback="good").with_inputs("essay")]
    found = evaluate(Graded(), rows, lambda gold, pred: gold.score == pred.score and gold.feedback == pred.feedback)
    assert (found.rows["score"][0], found.rows["pred_score"][0]) == (1.0, 3)


def test_the_figures_of_an_inference_table_are_replaced():
    found = evaluate(Shout(), examples("a", error="timeout", seconds=9.0)).rows
    assert values(found["error"]) == [None]
    assert found["seconds"][0] < 9


def test_a_reserved_name_in_a_later_row_is_its_error():
    data = [*examples(*"a" * 1000), *examples("b", tries="E42")]
    assert values(evaluate(Shout(), data).rows["error"])[999:] == [
        None,
        "DataError: The column 'tries' of the data has the name of a result column: rename or drop it.",
    ]


@pytest.mark.parametrize("judged", ["0.7", b"1", "yes"])
def test_a_text_is_no_score(judged: Any):
    rows = evaluate(Shout(), examples("a"), lambda gold, pred: judged).rows
    assert rows["score"][0] == 0.0
    assert rows["error"][0] == f"DataError: the metric returned {judged!r}; a score is a number, True or False"


HALF = "cut \ud83d"


@pytest.mark.parametrize("place", ["answer", "nested answer", "label", "feedback", "error of the metric", "error"])
def test_half_a_surrogate_in_a_row_ends_no_evaluation(place: str):
    class Half(dspy.Module):
        def forward(self, question: str) -> dspy.Prediction:
            if place == "error":
                raise ValueError(HALF)
            return dspy.Prediction(answer={"x": [HALF]} if place.startswith("nested") else HALF, note="ok")

    def metric(gold: Any, pred: Any) -> Any:
        if place == "error of the metric":
            raise ValueError(HALF)
        return dspy.Prediction(score=1.0, feedback=HALF)

    found = evaluate(Half(), examples("a", note=HALF), metric)
    assert "cut \ufffd" in found.rows.to_json(force_ascii=False)
    assert found.score == (0.0 if "error" in place else 1.0)


@pytest.mark.parametrize(
    ("judged", "score", "feedback"),
    [
        (True, 1.0, None),
        (0.25, 0.25, None),
        (dspy.Prediction(score=0.5, feedback="half"), 0.5, "half"),
        (dspy.Prediction(score=1), 1.0, None),
    ],
)
def test_a_metric_may_give_what_dspy_s_metrics_do(judged: Any, score: float, feedback: str | None):
    rows = evaluate(Shout(), examples("a"), lambda gold, pred, trace=None: judged).rows
    assert rows.loc[0, ["score", "feedback"]].tolist() == [score, feedback]


def test_rows_keep_their_order_when_they_are_done_at_once():
    turns = {name: threading.Event() for name in "abcd"}
    turns["d"].set()

    class LastFirst(dspy.Module):
        def forward(self, question: str) -> dspy.Prediction:
            assert turns[question].wait(30)
            before = chr(ord(question) - 1)
            if before in turns:
                turns[before].set()
            return dspy.Prediction(answer=question.upper())

    rows = evaluate(LastFirst(), examples(*"abcd"), threads=4).rows
    assert rows["question"].tolist() == list("abcd")
    assert rows["score"].tolist() == [1.0] * 4


@pytest.mark.parametrize("threads", [1, 4])
def test_usage_is_counted_per_row_and_in_total(threads: int):
    def respond(request: ScriptedRequest) -> Any:
        question = request.messages[1]["content"].removeprefix("question: ")
        if question == "long" and len(request.messages) == 2:
            return "not a step"
        return finish(answer=question.upper())

    program = oneturn.ReAct("question -> answer", tools=[])
    with ScriptedLM(*[respond] * 5) as lm, dspy.track_usage() as usage:
        rows = evaluate(program, examples("a", "long", "b", "c"), lm=lm, threads=threads).rows
    assert rows["lm_calls"].tolist() == [1, 2, 1, 1]
    assert rows["score"].tolist() == [1.0] * 4
    total = usage.get_total_tokens()["scripted/lm"]
    assert rows["prompt_tokens"].sum() == total["prompt_tokens"]
    assert rows["completion_tokens"].sum() == total["completion_tokens"]


def test_what_the_cache_answers_costs_nothing():
    program = oneturn.ReAct("question -> answer", tools=[])
    with ScriptedLM(finish(answer="A"), cache=True) as lm:
        found = evaluate(program, examples("a", "a"), lm=lm)
    assert found.rows["lm_calls"].tolist() == [1, 0]
    assert found.rows["cost"].isna().tolist() == [True, False]
    assert "cost" not in found.spent(), "the price of one call is unknown"


def test_settings_of_the_caller_reach_every_thread():
    class Asks(dspy.Module):
        def forward(self, question: str) -> dspy.Prediction:
            return dspy.Prediction(answer=dspy.settings.lm("x")[0])

    with ScriptedLM(*["A"] * 3) as lm, dspy.context(lm=lm):
        assert evaluate(Asks(), examples("a", "a", "a"), threads=3).score == 1.0


def test_scores_by_label():
    found = evaluate(Shout(), examples("a", "b", kind="letter") + examples("bad", kind="word"))
    assert found.by("kind").to_dict("index") == {
        "letter": {"score": 1.0, "low": pytest.approx(0.342, abs=0.001), "high": 1.0, "rows": 2},
        "word": {"score": 0.0, "low": 0.0, "high": pytest.approx(0.793, abs=0.001), "rows": 1},
    }
    partly = evaluate(Shout(), examples("a", kind="letter") + examples("bad"))
    assert partly.by("kind")["rows"].to_dict() == {"letter": 1}
    assert partly.by("kind", missing="other")["rows"].to_dict() == {"letter": 1, "other": 1}


def test_without_examples_there_is_nothing_to_evaluate():
    with pytest.raises(DataError) as caught:
        evaluate(Shout(), [])
    assert str(caught.value) == "There are no examples to evaluate; give at least one."


SCORES = st.lists(st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1)), min_size=1, max_size=30)


@settings(max_examples=60, deadline=None)
@given(SCORES)
def test_the_interval_holds_the_mean(scores: list[float]):
    low, high = interval(scores)
    assert 0 <= low <= np.mean(scores) + 1e-9
    assert np.mean(scores) - 1e-9 <= high <= 1


def test_the_interval_is_the_same_each_time_and_narrows_with_more_rows():
    assert interval([0, 1, 1, 0, 1]) == interval([0, 1, 1, 0, 1])
    few, many = interval([0, 1] * 5), interval([0, 1] * 50)
    assert many[1] - many[0] < few[1] - few[0]


@pytest.mark.parametrize("verdict", [float("nan"), float("inf"), np.nan, None, "good", dspy.Prediction(score=np.nan)])
def test_score_that_is_not_a_number_is_an_error_of_its_row(verdict: Any):
    verdicts = iter([verdict, 1.0, 1.0, 0.0])
    found = evaluate(Shout(), examples(*"abcd"), lambda gold, pred, trace=None: next(verdicts))
    assert found.score == 0.5
    assert found.errors() == {"DataError": 1}
    assert "the metric returned" in found.rows["error"][0]


def test_metric_that_judged_nothing_has_no_figure_although_a_row_failed():
    def unset(gold: dspy.Example, pred: Any, trace: object = None) -> dspy.Prediction:
        return dspy.Prediction(score=None, feedback="Not judged: no judge is configured.")

    found = evaluate(Shout(), examples("a", "bad", "c"), {"score": right, "groundedness": unset})
    assert "groundedness" not in found.summary()
    assert found.judged() == []
    assert [scored.name for scored in figures(found, None, "category", 1.0).metrics] == []
    assert found.not_judged() == {"groundedness": (2, "Not judged: no judge is configured.")}
    assert "groundedness" in found.metrics()


def test_missing_value_of_a_table_is_no_label():
    frame = pd.DataFrame({"question": ["a", "b"], "gold": ["A", None], "answer": [None, "x"]})
    seen: list[Any] = []

    def metric(gold: dspy.Example, pred: Any, trace: object = None) -> float:
        seen.append(gold.gold)
        return 1.0

    oneturn.evaluate(Shout(), frame.to_dict("records"), metric, inputs=["question"], progress=False)
    assert seen == ["A", None]
    labels = [row["expectations"] for row in to_agent_evaluation(frame.to_dict("records"))]
    assert labels == [{"gold": "A"}, {"expected_response": "x"}]
