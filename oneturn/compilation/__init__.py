"""Compiling an agent's prompts: what it will cost, what happens in it, how it is stopped and gone on with."""

from oneturn.compilation.callbacks import CompileCallback
from oneturn.compilation.mlflow import MlflowRuns
from oneturn.compilation.progress import SpendBar
from oneturn.compilation.recipes import Work, chain, recipe
from oneturn.compilation.result import Candidate, Compilation
from oneturn.compilation.runner import compile, estimate_compile

__all__ = [
    "Candidate",
    "Compilation",
    "CompileCallback",
    "MlflowRuns",
    "SpendBar",
    "Work",
    "chain",
    "compile",
    "estimate_compile",
    "recipe",
]
