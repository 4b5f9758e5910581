"""``Scorer``: a metric with DSPy's signature that also returns feedback."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import dspy

PASS = 0.999
"""The minimum score of a run that is used as a demonstration."""


@dataclass(frozen=True)
class Verdict:
    """The result of a scorer for one answer.

    Attributes:
        score: 0 to 1; ``None`` if the example has no label to judge by.
        feedback: what was wrong and what is expected, or why there is no score.
    """

    score: float | None
    feedback: str


Judge = Callable[[dspy.Example, Any], Verdict]


@dataclass(frozen=True)
class Scorer:
    """A metric for ``oneturn.evaluate``, for ``dspy.Evaluate`` and for all of DSPy's optimizers.

    Attributes:
        name: the name of its column.
        judge: function that scores a prediction.
        settings: the arguments that it was created with; a changed setting makes a different evaluation.
    """

    name: str
    judge: Judge
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def __name__(self) -> str:
        """The scorer's name, as functions have it."""
        return self.name

    @property
    def key(self) -> str:
        """Equal for scorers with the same name and settings."""
        return f"{self.name}{sorted((name, str(value)) for name, value in self.settings.items())}"

    def __call__(
        self, example: dspy.Example, prediction: Any, trace: Any = None, pred_name: Any = None, pred_trace: Any = None
    ) -> Any:
        """Judge a prediction.

        Returns:
            With a ``trace`` and no ``pred_name``, as bootstrapping optimizers call it: whether the run is good enough
            for a demonstration. Otherwise a ``dspy.Prediction`` with ``score``, 0 to 1, and ``feedback``.
        """
        verdict = self.judge(example, prediction)
        if trace is not None and pred_name is None:
            return verdict.score is not None and verdict.score >= PASS
        return dspy.Prediction(score=verdict.score, feedback=verdict.feedback)


class NotLabelled(Exception):
    """An example has no label to judge by."""


def expected(example: dspy.Example, name: str) -> Any:
    """The expected value of an example.

    Raises:
        NotLabelled: the example has no such field, or it is ``None``.
    """
    value = example.get(name)
    if value is None:
        fields = ", ".join(example.keys())
        raise NotLabelled(f"Not judged: the example has no {name!r} to judge by; its fields are {fields}.")
    return value


def scorer(name: str, judge: Judge, **settings: Any) -> Scorer:
    """Build a scorer that returns no score for an example without the needed label."""

    def judge_or_skip(example: dspy.Example, prediction: Any) -> Verdict:
        try:
            return judge(example, prediction)
        except NotLabelled as error:
            return Verdict(None, str(error))

    return Scorer(name, judge_or_skip, settings)


def texts(value: Any) -> list[str]:
    """One text, or several, as a list without duplicates."""
    values: Iterable[Any] = [value] if isinstance(value, str) else value
    return list(dict.fromkeys(str(item) for item in values))


def f1(found: Iterable[str], wanted: Iterable[str]) -> float:
    """Harmonic mean of precision and recall (van Rijsbergen 1979), 0 to 1; 1 if both are empty."""
    found_set, wanted_set = set(found), set(wanted)
    if not found_set and not wanted_set:
        return 1.0
    return 2 * len(found_set & wanted_set) / (len(found_set) + len(wanted_set))


def join_names(names: Iterable[str]) -> str:
    """Names joined for a sentence; ``"none"`` if there are none."""
    return ", ".join(names) or "none"
