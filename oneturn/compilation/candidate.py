"""A candidate: a program that a compile measured."""

from __future__ import annotations

from dataclasses import dataclass

import dspy

from oneturn.core.usage import Usage
from oneturn.evaluation.result import Evaluation

_COLUMNS = {"LM calls": ("lm_calls",), "tokens": ("prompt_tokens", "completion_tokens"), "seconds": ("seconds",)}


@dataclass(frozen=True)
class Candidate:
    """A program that was measured.

    Attributes:
        number: position in the order of measurement; 0 is the uncompiled program.
        program: a copy of the program at the time of the measurement.
        scores: the score of each example, 0 to 1, in order.
        full: whether it was measured on all development examples.
        spent: usage of the compile up to this measurement.
        seconds: run time of the compile up to this measurement, over all its runs.
        lm: the model string of the LM that it was measured with.
        uncompiled: whether it is the uncompiled program.
        evaluation: its rows with their usage, of a program that was measured on all development examples; known when
            the recipe is over.
    """

    number: int
    program: dspy.Module
    scores: tuple[float, ...]
    full: bool
    spent: Usage
    seconds: float
    lm: str = ""
    uncompiled: bool = False
    evaluation: Evaluation | None = None

    @property
    def name(self) -> str:
        """``uncompiled``, or ``candidate`` with the number."""
        return "uncompiled" if self.uncompiled else f"candidate {self.number}"

    @property
    def score(self) -> float:
        """The mean of the scores."""
        return sum(self.scores) / len(self.scores)

    def per_question(self, unit: str) -> float | None:
        """The mean usage of a question.

        Args:
            unit: ``LM calls``, ``tokens``, ``seconds`` or ``US dollars``.

        Returns:
            The mean; ``None`` if the candidate has no evaluation, or the price of its LM isn't known.
        """
        if self.evaluation is None:
            return None
        rows = self.evaluation.figures
        if unit == "US dollars":
            return float(rows["cost"].mean()) if "cost" in rows and rows["cost"].notna().any() else None
        return float(rows[list(_COLUMNS[unit])].sum(axis=1).mean())
