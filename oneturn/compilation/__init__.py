"""Compiling an agent's prompts: what it will cost, what happens in it, how it is stopped and gone on with."""

from oneturn.compilation.callbacks import CompileListener
from oneturn.compilation.mlflow import MlflowRuns
from oneturn.compilation.progress import SpendBar
from oneturn.compilation.recipes import Work, composed, recipe
from oneturn.compilation.result import Candidate, Compilation
from oneturn.compilation.runner import compile, estimate_compile

__all__ = [
    "Candidate",
    "Compilation",
    "CompileListener",
    "MlflowRuns",
    "SpendBar",
    "Work",
    "compile",
    "composed",
    "estimate_compile",
    "recipe",
]
