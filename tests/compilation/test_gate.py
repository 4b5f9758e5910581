"""The gate compares two evaluations and decides whether the challenger passes."""

from __future__ import annotations

import io
import json
from math import comb
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from oneturn.config import GateConfig
from oneturn.errors import DataError, OneTurnError
from oneturn.evaluation.comparison import compare
from oneturn.evaluation.promotion_rule import check_split
from oneturn.evaluation.result import Evaluation


def evaluation(scores: list[float], categories: list[str] | None = None, **columns: Any) -> Evaluation:
    rows: dict[str, Any] = {"id": [f"dev-{number}" for number in range(len(scores))]}
    if categories is not None:
        rows["category"] = categories
    figures = {"seconds": list(range(len(scores))), "score": scores, "feedback": None}
    figures |= {"cites": scores, "cites_feedback": None, "error": None}
    return Evaluation(pd.DataFrame({**rows, "pred_answer": "x", **figures, **columns}))


def test_a_clear_gain_passes():
    found = compare(evaluation([0.0] * 15 + [1.0] * 15), evaluation([1.0] * 28 + [0.0] * 2))
    assert found.passed
    assert found.difference == pytest.approx(13 / 30)
    assert 0 < found.low < found.difference < found.high
    assert (len(found.better), [flip.example for flip in found.worse]) == (15, ["dev-28", "dev-29"])


def test_no_gain_does_not_pass():
    same = evaluation([0.0, 1.0] * 10)
    found = compare(same, same)
    assert not found.passed
    assert found.reasons == ("The lower bound of the difference is +0.0%; the rule requires over +0.0%.",)
    assert (found.better, found.worse) == ((), ())


def test_insignificant_gain_does_not_pass():
    found = compare(evaluation([0.0] * 10 + [1.0] * 10), evaluation([0.0] * 8 + [1.0] * 11 + [0.0]))
    assert found.difference > 0
    assert found.low < 0
    assert not found.passed


def test_pairing_detects_a_gain_despite_overlapping_intervals():
    """Each on its own the scores overlap; example by example the challenger is never worse."""
    before = [0.0] * 20 + [1.0] * 20
    after = [0.0] * 12 + [1.0] * 28
    champion, challenger = evaluation(before), evaluation(after)
    assert champion.interval[1] > challenger.interval[0]
    assert compare(champion, challenger).passed


def test_large_category_loss_does_not_pass():
    categories = ["sum"] * 10 + ["lookup"] * 20
    before = evaluation([1.0] * 10 + [0.0] * 20, categories)
    found = compare(before, evaluation([1.0] * 8 + [0.0] * 2 + [1.0] * 20, categories))
    assert found.low > 0
    assert found.reasons == ("sum loses 20.0% (100.0% to 80.0%, 10 examples); the rule allows 10.0%.",)
    at_the_limit = compare(before, evaluation([1.0] * 9 + [0.0] + [1.0] * 20, categories))
    assert at_the_limit.passed, "10% is allowed, more isn't"
    lenient = GateConfig(max_category_loss=0.25)
    assert compare(before, evaluation([1.0] * 8 + [0.0] * 2 + [1.0] * 20, categories), lenient).passed


def test_small_categories_are_judged_together():
    categories = ["lookup"] * 20 + ["a"] * 4 + ["b"] * 3
    before = evaluation([0.0] * 20 + [1.0] * 7, categories)
    found = compare(before, evaluation([1.0] * 20 + [0.0] + [1.0] * 6, categories))
    assert [(change.category, change.rows, change.judged) for change in found.categories] == [
        ("lookup", 20, True),
        ("a, b", 7, True),
    ]
    assert found.reasons == ("a, b loses 14.3% (100.0% to 85.7%, 7 examples); the rule allows 10.0%.",)


def test_pooled_categories_that_are_too_small_are_not_judged():
    categories = ["lookup"] * 20 + ["a"] * 2
    found = compare(evaluation([0.0] * 20 + [1.0] * 2, categories), evaluation([1.0] * 20 + [0.0] + [1.0], categories))
    assert found.passed
    assert not found.categories[-1].judged
    assert "a (too few to judge)" in found.to_markdown()


def test_examples_without_a_category_are_a_category():
    categories: list[Any] = ["sum"] * 10 + [None] * 9 + [float("nan")]
    found = compare(evaluation([0.0] * 20, categories), evaluation([1.0] * 20, categories))
    assert found.passed
    assert [(change.category, change.rows) for change in found.categories] == [("sum", 10), ("no category", 10)]
    assert {flip.category for flip in found.better} == {"sum", None}
    assert "| dev-19 |  | 0.00 | 1.00 |" in found.to_markdown()
    assert "NaN" not in found.to_json()
    shown = io.StringIO()
    Console(file=shown, width=120).print(found)
    assert "dev-19" in shown.getvalue()


def test_examples_without_a_category_may_not_lose_either():
    categories: list[Any] = ["sum"] * 60 + [None] * 20
    found = compare(evaluation([0.0] * 60 + [1.0] * 20, categories), evaluation([1.0] * 60 + [0.0] * 20, categories))
    assert found.reasons == ("no category loses 100.0% (100.0% to 0.0%, 20 examples); the rule allows 10.0%.",)
    none: list[Any] = [None] * 80
    found = compare(evaluation([0.0] * 60 + [1.0] * 20, none), evaluation([1.0] * 60 + [0.0] * 20, none))
    assert (found.passed, found.categories) == (True, ())


@pytest.mark.parametrize("without", ["champion", "challenger"])
def test_categories_that_one_side_lacks_are_those_of_the_other(without: str):
    categories = {"champion": ["sum"] * 30 + ["lookup"] * 10, "challenger": ["sum"] * 30 + ["lookup"] * 10}
    del categories[without]
    before = evaluation([0.0] * 30 + [1.0] * 10, categories.get("champion"))
    after = evaluation([1.0] * 30 + [0.0] * 10, categories.get("challenger"))
    assert compare(before, after).reasons == (
        "lookup loses 100.0% (100.0% to 0.0%, 10 examples); the rule allows 10.0%.",
    )


def test_configured_label_that_the_rows_lack_does_not_pass():
    with_it = evaluation([1.0] * 20, topic=["sum"] * 20)
    assert compare(evaluation([0.0] * 20, topic=["sum"] * 20), with_it, GateConfig(category="topic")).passed
    for before, lacking in ((evaluation([0.0] * 20), "champion"), (evaluation([0.0] * 20, topic=None), "champion")):
        found = compare(before, evaluation([1.0] * 20), GateConfig(category="topic"))
        assert found.reasons[0].startswith(f"No row of {lacking} and of challenger has the label 'topic'")
    assert not compare(evaluation([0.0] * 20), with_it, GateConfig(category="topic")).passed


@pytest.mark.parametrize(("rows", "flips"), [(10, 0.2), (24, 0.1), (24, 0.2), (54, 0.05)])
def test_false_positive_rate_matches_the_interval(rows: int, flips: float):
    passing = 0.0
    for gains in range(rows + 1):
        for losses in range(min(gains, rows - gains + 1)):
            ways = comb(rows, gains) * comb(rows - gains, losses)
            chance = ways * flips ** (gains + losses) * (1 - 2 * flips) ** (rows - gains - losses)
            if chance > 1e-6:
                champion = [0.0] * gains + [1.0] * losses + [1.0] * (rows - gains - losses)
                challenger = [1.0] * gains + [0.0] * losses + [1.0] * (rows - gains - losses)
                passing += chance * compare(evaluation(champion), evaluation(challenger)).passed
    assert passing < 0.03, "2.5% of the intervals lie above what is true"


def test_too_few_examples_do_not_pass():
    found = compare(evaluation([0.0] * 4), evaluation([1.0] * 4))
    assert found.low == 1.0
    assert found.reasons == ("There are 4 examples; the rule requires at least 10.",)


@pytest.mark.parametrize(
    ("challenger", "message"),
    [
        (evaluation([1.0] * 3), r"champion has \d+ examples and lacks 1 of the other evaluation \(dev-2\)"),
        (evaluation([1.0] * 2, id=["dev-0", "dev-7"]), r"champion has .* \(dev-7\)"),
        (evaluation([1.0] * 2, ["d", "c"]), "Example 1 differs between champion and challenger"),
    ],
)
def test_different_examples_are_an_error(challenger: Evaluation, message: str):
    with pytest.raises(DataError, match=message):
        compare(evaluation([1.0] * 2, ["c", "c"]), challenger)


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_invalid_score_is_an_error_with_its_example(score: float):
    with pytest.raises(DataError, match=f"gave dev-11 of challenger the score {score}, which isn't a finite number"):
        compare(evaluation([0.0] * 12), evaluation([1.0] * 11 + [score]))


def test_no_examples_are_an_error():
    with pytest.raises(DataError, match="no examples"):
        compare(evaluation([]), evaluation([]))


def test_evaluation_without_a_successful_run_is_an_error():
    broken = evaluation([0.0] * 12, error="LMError: no route to host")
    with pytest.raises(OneTurnError, match=r"champion has no scores: all of its 12 examples failed.*no route"):
        compare(broken, evaluation([1.0] * 12))


def test_failed_examples_are_reported():
    found = compare(evaluation([0.0] * 12, error=[None] * 11 + ["E: x"]), evaluation([1.0] * 12))
    assert "1 of 12 examples failed for champion; each counts as 0." in found.to_markdown()


def test_failed_rows_of_both_sides_count_whatever_their_names():
    failed = evaluation([0.0] * 12 + [1.0] * 12, error=["E: x"] * 12 + [None] * 12)
    for names in (("main", "pr"), ("rows", "rows")):
        found = compare(failed, evaluation([1.0] * 24), names=names)
        assert not found.passed
        assert f"50.0% of the rows of {names[0]} failed" in found.reasons[0]


@pytest.mark.parametrize(("split", "why"), [("test", "used to select a version"), ("train", "as demos")])
def test_asking_for_the_test_split_is_an_error_that_says_why(split: str, why: str):
    with pytest.raises(DataError, match=f"Versions can't be compared on the {split} split: .*{why}"):
        check_split(split)
    check_split("dev")


SCORES = st.lists(st.sampled_from([0.0, 0.3, 0.5, 1.0]), min_size=1, max_size=40)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_result_is_deterministic_and_never_passes_in_both_directions(data: st.DataObject):
    before = data.draw(SCORES)
    after = data.draw(st.lists(st.sampled_from([0.0, 0.3, 0.5, 1.0]), min_size=len(before), max_size=len(before)))
    one, other = evaluation(before), evaluation(after)
    found = compare(one, other)
    assert found.to_json() == compare(one, other).to_json()
    back = compare(other, one)
    assert not (found.passed and back.passed)
    assert len(found.better) == len(back.worse)
    if found.passed:
        assert found.low > 0
        assert found.difference > 0


def test_the_result_is_readable_for_people_and_machines():
    categories = ["sum"] * 15 + ["look[up]|"] * 15
    found = compare(evaluation([0.0] * 30, categories), evaluation([1.0] * 29 + [0.0], categories), names=("v1", "v2"))
    read = json.loads(found.to_json())
    assert read["passed"] is True
    assert read["better"][0] == {"example": "dev-0", "category": "sum", "champion": 0.0, "challenger": 1.0}
    text = found.to_markdown()
    assert text.startswith("# v2 against v1\n\nThe rule holds: v2 differs from v1 by +96.7%")
    assert "| look[up]\\| | 15 | 0.0% | 93.3% | +93.3% |" in text
    assert "and 9 more." in text
    shown = io.StringIO()
    Console(file=shown, width=120).print(found)
    assert "look[up]|" in shown.getvalue()
    assert "29 examples are better (9 more aren't shown)" in shown.getvalue()


@pytest.mark.parametrize("side", ["champion", "challenger"])
def test_comparison_with_many_failed_rows_is_refused(side: str):
    """A failed row counts as 0: an outage of the champion's endpoint would promote anything."""
    failed = [None] * 24 + ["EndpointError: no route"] * 6
    whole, broken = evaluation([1.0] * 30), evaluation([1.0] * 24 + [0.0] * 6, error=failed)
    found = compare(broken, whole) if side == "champion" else compare(whole, broken)
    reason = f"20.0% of the rows of {side} failed; the rule allows 10.0%. Run it again."
    assert found.reasons[0] == reason
    lenient = GateConfig(max_failed_rows=0.2, min_difference=-1)
    assert compare(broken, whole, lenient).passed


def test_failed_rows_are_counted_one_by_one_with_repeats():
    tries = {"id": [f"dev-{number // 2}" for number in range(40)], "repeat": [0, 1] * 20}
    broken = evaluation([1.0, 0.0] * 20, error=[None, "EndpointError: no route"] * 20, **tries)
    found = compare(broken, evaluation([1.0] * 40, **tries))
    assert found.reasons == ("50.0% of the rows of champion failed; the rule allows 10.0%. Run it again.",)
