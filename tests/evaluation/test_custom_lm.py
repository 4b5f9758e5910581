"""Programs whose LM has an engine of its own, which DSPy can't write down."""

from __future__ import annotations

from typing import Any

import dspy

import oneturn
from benchmarks.evaluating.waiting_lm import waiting_program


def yes(gold: dspy.Example, pred: Any, trace: Any = None) -> float:
    return float(pred.answer == "yes")


def test_a_program_with_such_an_lm_is_evaluated():
    found = oneturn.evaluate(waiting_program(0.0), [{"question": "a"}], yes, inputs=["question"], progress=False)
    assert list(found.figures["score"]) == [1.0]
