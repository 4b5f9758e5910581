"""Demos chosen per question: a pool of worked runs, of which the most similar are shown behind the fixed demos."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from dspy.predict.parameter import Parameter

from oneturn.core.serialization import jsonable
from oneturn.errors import ProgramError

_WORD = re.compile(r"\w+")


class DemoPool(Parameter):
    """Worked runs, of which each question gets the ``k`` most similar as demos (BM25 over their inputs).

    It is a parameter of the program, as a predictor is, so that DSPy copies, saves and resets it. The most similar run
    comes last, next to the question. Runs with the same score are taken in the order of the pool: the choice is
    deterministic. Words that no run shares with the question choose nothing: there may be fewer than ``k`` demos.

    Args:
        runs: demos as a ``oneturn.ReAct`` has them.
        fields: the names of the input fields whose words are compared.
        k: the number of demos per question, at least 1.

    Raises:
        ProgramError: ``k`` is below 1.
    """

    def __init__(self, runs: Sequence[Mapping[str, Any]], fields: Sequence[str], k: int):
        if k < 1:
            raise ProgramError(f"k is {k}; a pool chooses at least 1 demo per question.")
        self.fields = list(fields)
        self.k = k
        self._set([dict(run) for run in runs])

    def _set(self, runs: list[dict[str, Any]]) -> None:
        self.runs = runs
        import bm25s  # slow to import, and most programs have no pool

        self._index = bm25s.BM25()
        self._words = [_words(self._text(run)) for run in runs]
        if any(self._words):
            self._index.index(self._words, show_progress=False)

    def choose(self, inputs: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the demos for a question, the most similar last.

        A run with the very same inputs isn't chosen: an optimizer that scores training examples would see them
        answered in the prompt.
        """
        known = set().union(*self._words)
        query = [word for word in _words(self._text(inputs)) if word in known]
        if not query:
            return []
        scores = self._index.get_scores(query)
        ranked = sorted(range(len(self.runs)), key=lambda index: (-scores[index], index))
        own = self._text(inputs)
        chosen = [self.runs[index] for index in ranked if scores[index] > 0 and self._text(self.runs[index]) != own]
        return chosen[: self.k][::-1]

    def _text(self, values: Mapping[str, Any]) -> str:
        return "\n".join(str(values[name]) for name in self.fields if values.get(name) is not None)

    def reset(self) -> None:
        """Remove all runs, as DSPy's optimizers do before they compile."""
        self._set([])

    def dump_state(self, json_mode: bool = True) -> dict[str, Any]:
        """Return the pool as JSON types."""
        return {"k": self.k, "fields": self.fields, "runs": jsonable(self.runs)}

    def load_state(self, state: Mapping[str, Any], **_: Any) -> None:
        """Load a pool that :meth:`dump_state` returned."""
        self.k, self.fields = int(state["k"]), list(state["fields"])
        self._set([dict(run) for run in state["runs"]])


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())
