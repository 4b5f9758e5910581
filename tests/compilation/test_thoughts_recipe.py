"""The recipe that chooses thoughts, from the LM's scores with each option."""

from __future__ import annotations

import json
from typing import Any

import dspy
import pytest

import oneturn
from oneturn.compilation import recipes
from oneturn.errors import ConfigError
from oneturn.testing import ScriptedLM, ScriptedRequest


def sums(best: str) -> ScriptedLM:
    """An LM that is right only if its prompt asks for thoughts in this way; it has replies for three runs."""

    def reply(request: ScriptedRequest) -> str:
        way = "free" if '"Answer:"' in request.text else "short" if '"thought"' in request.text else "none"
        step = {"tool_call": {"name": "finish", "args": {"answer": "36" if best in (way, "all") else "35"}}}
        return f"{'Twelve threes.' if way == 'free' else ''}\n{json.dumps(step)}"

    return ScriptedLM(reply, reply, reply, free_text=True)


@pytest.mark.parametrize(("best", "chosen"), [("free", "free"), ("short", True), ("none", False), ("all", False)])
def test_the_best_thoughts_are_kept_and_of_equal_ones_the_shortest(best: str, chosen: Any):
    program = oneturn.ReAct("question -> answer", tools=[])
    example = dspy.Example(question="12 * 3?", answer="36").with_inputs("question")
    with sums(best) as lm, dspy.context(lm=lm):
        compiled = recipes.thoughts(
            program, valset=[example], metric=lambda gold, pred, trace=None: pred.answer == gold.answer, threads=1
        )
    assert compiled.thoughts == chosen
    assert program.thoughts == "free"


def test_another_program_is_refused():
    with pytest.raises(ConfigError, match="not of a Predict"):
        recipes.thoughts(dspy.Predict("question -> answer"), valset=[], metric=lambda gold, pred: True, threads=1)
