"""An agent that any recipe can compile, with an LM that learns from better instructions and from demos."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy

import oneturn
from oneturn.agent import Agent
from oneturn.compilation import chain, recipes
from oneturn.testing import sections
from tests.optimizers.clever_lm import CleverLM, digit, finished

BETTER = "Repeat the question, word for word."
ADVICE = json.dumps(dict.fromkeys(["step", "react", "extract.predict", "self"], BETTER))
TEXTS = {"instructions": BETTER, "proposed_instruction": BETTER, "module_advice": ADVICE}
RECIPES = {**recipes.RECIPES, "two": chain(recipes.bootstrap, recipes.gepa)}
GENERIC = ["labelled", "bootstrap", "bootstrap_random_search", "miprov2", "simba", "gepa"]
"""The recipes for any program, which need no labelled steps."""


def look_up(word: str) -> str:
    """Look a word up."""
    return f"the meaning of {word}"


def answer_to(prompt: str, time: int) -> str:
    """Return the right answer with the better instructions, else in about half of the cases."""
    question = re.findall(r"(?:question: |## question ## \]\]\n)(\S+)", prompt)[-1]
    return question if BETTER in prompt or digit(f"{prompt}{time}") < 5 else "?"


def step(prompt: str, fields: list[str], time: int = 0) -> str:
    """Return the LM's reply to an agent's prompt."""
    if "next_tool_name" in fields:
        return sections(next_thought="I know it", next_tool_name="finish", next_tool_args={})
    if "answer" in fields:
        return sections(reasoning="So.", answer=answer_to(prompt, time))
    return finished(answer_to(prompt, time))


def examples(split: str) -> list[dspy.Example]:
    """Return examples whose answer is the question."""
    names = [f"{split}-{number}" for number in range(12)]
    return [dspy.Example(question=name, answer=name, category="all").with_inputs("question") for name in names]


def metric(gold: Any, pred: Any, trace: Any = None, pred_name: Any = None, pred_trace: Any = None) -> Any:
    """Score whether the answer equals the question; with feedback for GEPA."""
    score = float(getattr(pred, "answer", None) == gold.answer)
    if pred_name is not None:
        return dspy.Prediction(score=score, feedback=f"It should be {gold.answer}.")
    return bool(score) if trace is not None else score


PROGRAMS = {
    "oneturn.ReAct": lambda: oneturn.ReAct("question -> answer", tools=[look_up], thoughts=False),
    "dspy.ReAct": lambda: dspy.ReAct("question -> answer", tools=[look_up], max_iters=2),
    "dspy.Predict": lambda: dspy.Predict("question -> answer"),
}


class CleverAgent(Agent):
    """An agent with the LM in ``LMS``."""

    def lm(self) -> dspy.BaseLM:
        """Return the LM of this agent's folder."""
        return LMS[self.root]


LMS: dict[Path, CleverLM] = {}


def agent(folder: Path, program: str, reply: Callable[[str, list[str]], str] = step) -> Agent:
    """Create the agent and its folder."""
    folder.mkdir(exist_ok=True)
    LMS[folder] = CleverLM(reply, TEXTS)
    return CleverAgent(
        name="parrot",
        config=oneturn.AgentConfig.read({"compiled": "compiled.json"}),
        build=PROGRAMS[program],
        metric=metric,
        examples=examples,
        recipes=RECIPES,
        root=folder,
        code_paths=(),
        example_questions=(),
    )
