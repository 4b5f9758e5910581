"""An agent to be deployed: its LM answers from a script, or from the configured endpoint."""

from pathlib import Path

import desk_parts
import dspy
import mlflow

import oneturn
from oneturn.testing import ScriptedLM, finish

ROOT = Path(desk_parts.__file__).parents[1]
CONFIG = oneturn.AgentConfig.read("config.yaml", root=ROOT)


class Scripted(oneturn.Agent):
    def lm(self):
        if self.config.lm.api_base is not None:
            return super().lm()
        return ScriptedLM(*[finish(answer=f"{desk_parts.GREETING}. It is open.")] * 99)


AGENT = Scripted(
    name="desk",
    config=CONFIG,
    build=lambda: oneturn.ReAct("question -> answer", tools=[], thoughts=False),
    metric=lambda example, prediction, trace=None: prediction.answer == example.answer,
    examples=lambda split: [dspy.Example(question="Is it open?", answer="yes").with_inputs("question")],
    recipes={},
    root=ROOT,
    code_paths=("desk_parts",),
    example_questions=("Is it open?",),
)
mlflow.models.set_model(AGENT.adapter())
