"""The metric: a correct answer with the right citations, or a refusal where there is no answer.

Scores range from 0 (worst) to 1 (fully right). The metric is deterministic and makes no LM calls.

==========================================  =====
the right answer                            0.7
the right citations, by F1 of the sources   0.3
an unanswerable question, refused           1
an unanswerable question, answered          0
an answerable question, refused             0
no usable prediction (the run failed)       0
==========================================  =====
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import dspy

from oneturn.evaluation.scorers import f1
from optimizers.answers import same_answer

ANSWER_WEIGHT = 0.7
CITATION_WEIGHT = 0.3
FULLY_RIGHT = 0.999


@dataclass(frozen=True)
class Grade:
    """The grade of one prediction.

    Attributes:
        score: 0 to 1, as in the table above.
        correct: whether the answer matches the gold answer, or the refusal is correct.
        citation: F1 of the cited sources; 1 for a correct refusal.
        refusal: whether the prediction refused to answer.
        feedback: what was wrong and what is right, for people and for reflective optimizers.
    """

    score: float
    correct: bool
    citation: float
    refusal: bool
    feedback: str


def grade(gold: dspy.Example, pred: Any) -> Grade:
    """Grade a prediction with ``answer``, ``citations`` and ``answerable``. Without ``answerable``, the run failed."""
    answerable = getattr(pred, "answerable", None)
    if not isinstance(answerable, bool):
        return Grade(0.0, False, 0.0, False, f"The run gave no usable result. {_right(gold)}")
    if not answerable:
        return _grade_refusal(gold)
    if not gold.answerable:
        feedback = f"You answered {_answer(pred)!r}, but the handbook and the orders don't contain the answer."
        return Grade(0.0, False, 0.0, False, f"{feedback} {_right(gold)}")
    return _grade_answer(gold, pred)


def correct(gold: dspy.Example, pred: Any, trace: Any = None) -> bool:
    """Return whether the answer, or the refusal, is correct. Citations are ignored."""
    return grade(gold, pred).correct


def support_metric(
    gold: dspy.Example, pred: Any, trace: Any = None, pred_name: str | None = None, pred_trace: Any = None
) -> float | bool | dspy.Prediction:
    """Grade a prediction, for evaluation and for all optimizers.

    Returns:
        With ``pred_name``, as ``dspy.GEPA`` passes it: a ``dspy.Prediction`` of score and feedback.
        With ``trace``, as bootstrapping optimizers pass it: whether the run is good enough for a demo.
        Otherwise: the score.
    """
    result = grade(gold, pred)
    if pred_name is not None:
        return dspy.Prediction(score=result.score, feedback=result.feedback)
    if trace is not None:
        return result.score >= FULLY_RIGHT
    return result.score


def _grade_refusal(gold: dspy.Example) -> Grade:
    if gold.answerable:
        return Grade(0.0, False, 0.0, True, f"You refused, but the question can be answered. {_right(gold)}")
    return Grade(1.0, True, 1.0, True, "Right: the handbook and the orders don't contain the answer, and you said so.")


def _grade_answer(gold: dspy.Example, pred: Any) -> Grade:
    right = same_answer(gold.answer, _answer(pred))
    cited, expected = _sources(getattr(pred, "citations", None)), _sources(gold.citations)
    citation = f1(cited, expected)
    score = ANSWER_WEIGHT * right + CITATION_WEIGHT * citation
    feedback = [
        f"The answer {gold.answer!r} is right." if right else _wrong_answer(gold.answer, _answer(pred)),
        "The citations are right." if citation == 1 else _wrong_citations(cited, expected),
    ]
    return Grade(score, right, citation, False, " ".join(feedback))


def _wrong_answer(gold: str, answer: str) -> str:
    if not answer.strip():
        return f"The answer is empty; it should be {gold!r}."
    return f"The answer {answer!r} is wrong; it should be {gold!r}, and state that alone."


def _wrong_citations(cited: list[str], expected: list[str]) -> str:
    missing = [source for source in expected if source not in cited]
    surplus = [source for source in cited if source not in expected]
    feedback = [f"Cite {', '.join(missing)}, which the answer is based on."] if missing else []
    if surplus:
        feedback.append(f"Don't cite {', '.join(surplus)}: the answer isn't based on it.")
    return " ".join(feedback)


def _right(gold: dspy.Example) -> str:
    if not gold.answerable:
        return "The right response is a refusal: answerable=False."
    return f"The right answer is {gold.answer!r}, citing {', '.join(gold.citations)}."


def _answer(pred: Any) -> str:
    answer = getattr(pred, "answer", None)
    return "" if answer is None else str(answer)


def _sources(citations: Iterable[str] | str | None) -> list[str]:
    """Return the distinct cited ids in order, normalized: "[Returns-Window.md]" becomes "returns-window"."""
    sources = [citations] if isinstance(citations, str) else citations or []
    ids = (str(source).strip(" []()\"'").casefold().removesuffix(".md") for source in sources)
    return list(dict.fromkeys(source for source in ids if source))
