"""What a good answer is: right, grounded in the right sources, and honest where there is no answer.

Direction: from 0 (worst) to 1 (fully right). Deterministic, no LM.

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
    """How one prediction did.

    Attributes:
        score: 0 to 1, see above.
        correct: the answer is the gold one, or the refusal was due.
        citation: F1 of the cited sources; 1 for a refusal that was due.
        refusal: the prediction refused to answer.
        feedback: what was wrong and what would have been right, for people and for reflective optimizers.
    """

    score: float
    correct: bool
    citation: float
    refusal: bool
    feedback: str


def grade(gold: dspy.Example, pred: Any) -> Grade:
    """Grade a prediction that has ``answer``, ``citations`` and ``answerable``; one that lacks them failed."""
    answerable = getattr(pred, "answerable", None)
    if not isinstance(answerable, bool):
        return Grade(0.0, False, 0.0, False, f"The run gave no usable result. {_right(gold)}")
    if not answerable:
        return _grade_refusal(gold)
    if not gold.answerable:
        told = f"You answered {_answer(pred)!r}, but neither the handbook nor the orders hold the answer."
        return Grade(0.0, False, 0.0, False, f"{told} {_right(gold)}")
    return _grade_answer(gold, pred)


def correct(gold: dspy.Example, pred: Any, trace: Any = None) -> bool:
    """Say whether the answer itself is right (or rightly refused), whatever it cites: the plain metric of reports."""
    return grade(gold, pred).correct


def support_metric(
    gold: dspy.Example, pred: Any, trace: Any = None, pred_name: str | None = None, pred_trace: Any = None
) -> float | bool | dspy.Prediction:
    """Grade for whoever asks: the one metric for evaluation and for all optimizers.

    Returns:
        To ``dspy.GEPA``, which asks about one predictor (``pred_name``): a ``dspy.Prediction`` of score and feedback.
        To a bootstrapping optimizer, which passes a ``trace``: whether the run is good enough for a demonstration.
        To everyone else: the score.
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
    return Grade(1.0, True, 1.0, True, "Right: neither the handbook nor the orders hold the answer, and you said so.")


def _grade_answer(gold: dspy.Example, pred: Any) -> Grade:
    right = same_answer(gold.answer, _answer(pred))
    cited, wanted = _sources(getattr(pred, "citations", None)), _sources(gold.citations)
    citation = f1(cited, wanted)
    score = ANSWER_WEIGHT * right + CITATION_WEIGHT * citation
    told = [
        f"The answer {gold.answer!r} is right." if right else _wrong_answer(gold.answer, _answer(pred)),
        "The citations are right." if citation == 1 else _wrong_citations(cited, wanted),
    ]
    return Grade(score, right, citation, False, " ".join(told))


def _wrong_answer(gold: str, answer: str) -> str:
    if not answer.strip():
        return f"The answer is empty; it should be {gold!r}."
    return f"The answer {answer!r} is wrong; it should be {gold!r}, and state that alone."


def _wrong_citations(cited: list[str], wanted: list[str]) -> str:
    missing = [source for source in wanted if source not in cited]
    surplus = [source for source in cited if source not in wanted]
    told = [f"Cite {', '.join(missing)}, which the answer rests on."] if missing else []
    if surplus:
        told.append(f"Don't cite {', '.join(surplus)}: the answer doesn't rest on it.")
    return " ".join(told)


def _right(gold: dspy.Example) -> str:
    if not gold.answerable:
        return "Right would be to say so: answerable=False."
    return f"Right would be the answer {gold.answer!r}, citing {', '.join(gold.citations)}."


def _answer(pred: Any) -> str:
    answer = getattr(pred, "answer", None)
    return "" if answer is None else str(answer)


def _sources(citations: Iterable[str] | str | None) -> list[str]:
    """The cited ids, each once, in order: "[Returns-Window.md]" is "returns-window"."""
    listed = [citations] if isinstance(citations, str) else citations or []
    cleaned = (str(source).strip(" []()\"'").casefold().removesuffix(".md") for source in listed)
    return list(dict.fromkeys(source for source in cleaned if source))
