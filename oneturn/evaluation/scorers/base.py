"""``Scorer``: a metric of DSPy's signature that says what was wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import dspy

PASS = 0.999
"""From this score on, a run is good enough for a demonstration."""


@dataclass(frozen=True)
class Verdict:
    """What a scorer says of one answer.

    Attributes:
        score: 0 to 1; ``None`` where there is nothing to judge by.
        feedback: what was wrong, and what would have been right; or why there is no score.
    """

    score: float | None
    feedback: str


Judge = Callable[[dspy.Example, Any], Verdict]


@dataclass(frozen=True)
class Scorer:
    """A metric for ``oneturn.evaluate``, for ``dspy.Evaluate`` and for all of DSPy's optimizers.

    Attributes:
        name: of its column.
        judge: says how good a prediction is.
        settings: what it was made with; another setting is another evaluation.
    """

    name: str
    judge: Judge
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def __name__(self) -> str:
        """Its name, as a function has one."""
        return self.name

    @property
    def key(self) -> str:
        """The same for what judges alike."""
        return f"{self.name}{sorted((name, str(value)) for name, value in self.settings.items())}"

    def __call__(
        self, example: dspy.Example, prediction: Any, trace: Any = None, pred_name: Any = None, pred_trace: Any = None
    ) -> Any:
        """Judge a prediction.

        Returns:
            To a bootstrapping optimizer, which passes a ``trace`` and no ``pred_name``: whether the run is good enough
            for a demonstration. To everyone else: a ``dspy.Prediction`` with ``score``, 0 to 1, and ``feedback``.
        """
        found = self.judge(example, prediction)
        if trace is not None and pred_name is None:
            return found.score is not None and found.score >= PASS
        return dspy.Prediction(score=found.score, feedback=found.feedback)


class NotLabelled(Exception):
    """An example doesn't say what is expected."""


def expected(example: dspy.Example, name: str) -> Any:
    """What an example expects.

    Raises:
        NotLabelled: it doesn't say.
    """
    value = example.get(name)
    if value is None:
        known = ", ".join(example.keys())
        raise NotLabelled(f"Not judged: the example has no {name!r} to judge by; its fields are {known}.")
    return value


def scorer(name: str, judge: Judge, **settings: Any) -> Scorer:
    """A scorer that says so where an example isn't labelled."""

    def judged(example: dspy.Example, prediction: Any) -> Verdict:
        try:
            return judge(example, prediction)
        except NotLabelled as missing:
            return Verdict(None, str(missing))

    return Scorer(name, judged, settings)


def texts(value: Any) -> list[str]:
    """One text, or several, as a list without repetitions."""
    given: Iterable[Any] = [value] if isinstance(value, str) else value
    return list(dict.fromkeys(str(each) for each in given))


def f1(found: Iterable[str], wanted: Iterable[str]) -> float:
    """Harmonic mean of precision and recall (van Rijsbergen 1979), 0 to 1; 1 where nothing is wanted nor found."""
    left, right = set(found), set(wanted)
    if not left and not right:
        return 1.0
    return 2 * len(left & right) / (len(left) + len(right))


def listed(names: Iterable[str]) -> str:
    """Names in a sentence."""
    return ", ".join(names) or "none"
