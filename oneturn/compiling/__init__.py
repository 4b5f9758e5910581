"""Compiling an agent's prompts: what it will cost, what happens in it, how it is stopped and gone on with."""

from oneturn.compiling.estimate import Work, recipe
from oneturn.compiling.mlflow_runs import MlflowRuns
from oneturn.compiling.progress import SpendBar
from oneturn.compiling.recipes import composed
from oneturn.compiling.run import Compilation, compile, estimate_compile
from oneturn.compiling.watching import Candidate, CompileListener

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
