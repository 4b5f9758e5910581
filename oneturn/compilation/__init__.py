"""Estimate, run, stop and resume a compile of an agent's prompts."""

from oneturn.compilation.callbacks import CompileCallback
from oneturn.compilation.candidate import Candidate
from oneturn.compilation.front import Front
from oneturn.compilation.mlflow import MlflowRuns
from oneturn.compilation.progress import SpendBar
from oneturn.compilation.recipes import Work, chain, recipe, with_options
from oneturn.compilation.result import Compilation
from oneturn.compilation.runner import compile, estimate_compile

__all__ = [
    "Candidate",
    "Compilation",
    "CompileCallback",
    "Front",
    "MlflowRuns",
    "SpendBar",
    "Work",
    "chain",
    "compile",
    "estimate_compile",
    "recipe",
    "with_options",
]
