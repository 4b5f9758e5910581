"""The figures say what was measured."""

import pandas as pd
import pytest

from oneturn.evaluation.plots import category_plot, score_plot
from oneturn.evaluation.result import Evaluation

pytest.importorskip("matplotlib", reason="needs the extra: notebooks")


def evaluation(**scores: list[float]) -> Evaluation:
    rows = [{"category": category, "score": score} for category, found in scores.items() for score in found]
    return Evaluation(pd.DataFrame(rows))


def test_each_evaluation_is_a_line_with_its_score_and_rows():
    figure = score_plot({"before": evaluation(sum=[0, 0, 1, 0]), "after": evaluation(sum=[1, 1])}, title="Better")
    (axes,) = figure.axes
    assert axes.get_title(loc="left") == "Better"
    assert (axes.get_xlim(), len(axes.get_xticks())) == ((0, 1), 5)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["before", "after"]
    assert [text.get_text() for text in axes.texts] == ["25%", "4 rows", "100%", "2 rows"]


def test_categories_stand_in_order_of_their_scores():
    (axes,) = category_plot(evaluation(sum=[0, 0], record=[1, 0.7], lookup=[0.3])).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["record", "lookup", "sum"]
