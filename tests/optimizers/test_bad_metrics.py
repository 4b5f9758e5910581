"""A metric that returns NaN, or raises, in an optimizer: an error of its row, never a success."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dspy
import pytest

import oneturn
from oneturn.errors import DataError, ProgramError
from oneturn.evaluation.row import finite_metric
from tests.optimizers.clever_agent import GENERIC, LMS, agent, metric

ODD = ("1", "3", "5", "7", "9")


def nan_on_odd(gold: Any, pred: Any, trace: Any = None, pred_name: Any = None, pred_trace: Any = None) -> Any:
    """NaN, or a prediction with it, where the number of the example is odd."""
    if gold.question.endswith(ODD):
        return math.nan if pred_name is None else dspy.Prediction(score=math.nan, feedback="?")
    return metric(gold, pred, trace, pred_name, pred_trace)


def raises_on_odd(gold: Any, pred: Any, trace: Any = None, pred_name: Any = None, pred_trace: Any = None) -> Any:
    """Raises where the number of the example is odd, unless GEPA asks for feedback."""
    if gold.question.endswith(ODD) and pred_name is None:
        raise ZeroDivisionError("no odd ones")
    return metric(gold, pred, trace, pred_name, pred_trace)


@pytest.mark.parametrize("bad", [nan_on_odd, raises_on_odd])
@pytest.mark.parametrize("recipe", GENERIC)
def test_a_bad_score_is_an_error_of_its_row_in_every_optimizer(recipe: str, bad: Callable[..., Any], tmp_path: Path):
    done = oneturn.compile(replace(agent(tmp_path, "oneturn.ReAct"), metric=bad), recipe=recipe)
    scores = [score for candidate in done.candidates for score in candidate.scores]
    assert all(math.isfinite(score) for score in scores)
    assert 0.0 < done.after.score <= 0.5, "half of the rows are errors"
    assert done.after.summary()["errors"] == 6
    if recipe != "labelled":  # its demos aren't scored
        demos = [demo.question for _, predictor in done.program.named_predictors() for demo in predictor.demos]
        assert not [question for question in demos if question.endswith(ODD)]


def test_a_metric_that_fails_on_every_answer_ends_the_compile_before_the_recipe(tmp_path: Path):
    broken = replace(agent(tmp_path, "oneturn.ReAct"), metric=lambda gold, pred, trace=None: math.nan)
    with pytest.raises(ProgramError, match=r"metric failed on all 5 .* the metric returned nan.* Fix the metric"):
        oneturn.compile(broken, recipe="bootstrap")
    assert len(LMS[tmp_path].steps) <= 5 + 1


@pytest.mark.parametrize("score", [math.nan, math.inf, None, "yes", dspy.Prediction(score=math.nan)])
def test_only_finite_numbers_are_scores(score: Any):
    checked = finite_metric(lambda gold, pred, trace=None, pred_name=None, pred_trace=None: score)
    for trace in (None, []):
        with pytest.raises(DataError, match="the metric returned"):
            checked(dspy.Example(), dspy.Prediction(), trace)
    feedback = checked(dspy.Example(), dspy.Prediction(), None, "self", None)
    assert (feedback.score, "the metric returned" in feedback.feedback) == (0.0, True)


@pytest.mark.parametrize("score", [True, 0, 0.5, dspy.Prediction(score=1.0, feedback="good")])
def test_numbers_are_unchanged(score: Any):
    assert finite_metric(lambda gold, pred, trace=None: score)(dspy.Example(), dspy.Prediction()) is score
