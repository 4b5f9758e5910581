"""The same agent with oneturn: a models-from-code file."""

import os

import dspy
import mlflow

import oneturn


def look_up(word: str) -> str:
    """Look a word up."""
    return f"the meaning of {word}"


program = oneturn.ReAct("question -> answer", tools=[look_up], max_iters=4)
program.set_lm(dspy.LM("openai/gpt-4o-mini", api_base=os.environ["STUB_LM"], api_key="none", cache=False))
mlflow.models.set_model(oneturn.ResponsesAdapter(program))
