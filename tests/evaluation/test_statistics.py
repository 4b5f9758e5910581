"""Repeats of an example: how reliably it is answered, and intervals that don't count them as more examples."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import dspy
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oneturn
from oneturn.errors import DataError
from oneturn.evaluation import compare
from oneturn.evaluation.result import Evaluation
from oneturn.evaluation.statistics import interval, pass_hat_k
from oneturn.testing import ScriptedLM, sections

TRIES = st.integers(1, 5).flatmap(lambda n: st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=1))


class Sometimes(dspy.Module):
    """Right on every second try of what begins with "some", always on the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: dict[str, int] = {}

    def forward(self, question: str) -> dspy.Prediction:
        self.asked[question] = self.asked.get(question, 0) + 1
        if question.startswith("bad"):
            raise ValueError("no")
        return dspy.Prediction(answer="no" if question.startswith("some") and self.asked[question] % 2 else "yes")


def right(gold: dspy.Example, pred: Any, trace: Any = None) -> float:
    return float(pred.answer == "yes")


def run(*questions: str, **options: Any) -> Evaluation:
    data = [{"question": question, "id": question} for question in questions]
    return oneturn.evaluate(Sometimes(), data, right, repeats=4, inputs=["question"], progress=False, **options)


@given(TRIES)
def test_it_is_the_share_of_choices_of_k_tries_that_all_passed(tries: list[list[bool]]):
    for found in pass_hat_k(tries):
        shares = [
            sum(map(all, chosen)) / len(chosen)
            for own in tries
            if (chosen := list(itertools.combinations(own, found.k)))
        ]
        assert found.value == pytest.approx(sum(shares) / len(shares))
        assert found.low <= found.value + 1e-9
        assert found.value <= found.high + 1e-9


def test_each_example_is_tried_so_often_in_order():
    found = run("some", "all")
    assert found.rows[["question", "repeat", "score"]].to_numpy().tolist() == [
        *(["some", n, float(n % 2)] for n in range(4)),
        *(["all", n, 1.0] for n in range(4)),
    ]
    assert found.repeats == 4
    assert [round(each.value, 3) for each in found.pass_hat_k()] == [0.75, 0.583, 0.5, 0.5]
    assert found.summary()["pass_hat_2"] == pytest.approx((1 + 1 / 6) / 2)


@pytest.mark.parametrize(
    ("scores", "low", "high"),
    [
        ([1.0], 0.207, 1.0),
        ([0.0], 0.0, 0.793),
        ([1.0] * 10, 0.722, 1.0),
        ([0.5] * 4, 0.150, 0.850),
        ([3.0] * 4, 3.0, 3.0),
    ],
)
def test_equal_scores_of_few_rows_have_a_wide_interval(scores: list[float], low: float, high: float):
    assert interval(scores) == pytest.approx((low, high), abs=0.001)


def test_an_interval_is_over_examples_not_over_their_repeats():
    once = oneturn.evaluate(Sometimes(), [{"question": f"some{n % 2}"} for n in range(8)], right, inputs=["question"])
    often = pd.concat([once.rows.loc[[place]].assign(repeat=n) for place in once.rows.index for n in range(50)])
    assert Evaluation(often.reset_index(drop=True)).interval == pytest.approx(once.interval)
    assert interval(often["score"])[0] > once.interval[0]


def test_one_that_was_stopped_goes_on_with_the_repeats_that_are_missing(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    with pytest.raises(KeyboardInterrupt):
        _evaluated(Stopping(3), path)
    program = Stopping(99)
    found = _evaluated(program, path)
    assert program.asked == ["b", "c", "c"]
    assert found.rows.groupby("question")["repeat"].apply(list).to_dict() == {"a": [0, 1], "b": [0, 1], "c": [0, 1]}


class Stopping(dspy.Module):
    def __init__(self, at: int):
        super().__init__()
        self.stops = [at]  # a list that no argument names is no part of the program
        self.asked: list[str] = []

    def dump_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return {}

    def forward(self, question: str) -> dspy.Prediction:
        if len(self.asked) == self.stops[0]:
            raise KeyboardInterrupt
        self.asked.append(question)
        return dspy.Prediction(answer="yes")


def _evaluated(program: Stopping, path: Path) -> Evaluation:
    data = [{"question": question} for question in "abc"]
    return oneturn.evaluate(program, data, right, repeats=2, inputs=["question"], output=path, progress=False)


def test_the_cache_answers_no_repeat():
    lm = ScriptedLM(*(sections(answer=text) for text in ("yes", "no", "yes")), cache=True)
    found = oneturn.evaluate(
        dspy.Predict("question -> answer"), [{"question": "a"}], right, lm=lm, repeats=3, progress=False
    )
    assert found.rows["pred_answer"].tolist() == ["yes", "no", "yes"]


def test_two_are_compared_by_example():
    few, many = run("some", "all", "bad"), run("all", "some", "bad")
    result = compare(few, many)
    assert (result.rows, result.difference, result.errors) == (3, 0.0, (1, 1))


def test_examples_that_one_side_lacks_are_named():
    with pytest.raises(DataError, match=r"champion has \d+ examples and lacks 1 of the other evaluation \(all\)"):
        compare(run("some"), run("some", "all"))


def test_none_is_no_number_of_repeats():
    with pytest.raises(DataError, match="repeats is 0"):
        oneturn.evaluate(Sometimes(), [{"question": "a"}], right, repeats=0)


def test_a_field_called_repeat_is_refused():
    with pytest.raises(DataError, match="The column 'repeat' of the data has the name of a result column"):
        oneturn.evaluate(Sometimes(), [{"question": "a", "repeat": 3}], right, inputs=["question", "repeat"])


def test_labels_are_distinguished_from_metrics_and_unreadable_rows():
    rows = [{}, {"question": "all", "quality": "high", "quality_feedback": "nice"}]
    found = oneturn.evaluate(Sometimes(), rows, {"score": right, "other": right}, inputs=["question"])
    assert (found.labels, found.metrics()) == (["question", "quality", "quality_feedback"], ["other"])
    assert found.summary()["rows"] == 2


def test_ids_stay_texts_in_every_format(tmp_path: Path):
    rows = [{"id": f"00{n}", "question": "all", "number": "12", "share": 1.5} for n in range(12)]
    files = [tmp_path / f"rows{suffix}" for suffix in (".csv", ".jsonl", ".parquet")]
    sides = [oneturn.evaluate(Sometimes(), rows, right, inputs=["question"], output=path) for path in files]
    assert compare(sides[0], sides[1]).rows == compare(sides[1], sides[2]).rows == 12
