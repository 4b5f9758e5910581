"""ReAct as a generator of steps: one chat turn per step, one schema-constrained tool call per turn."""

from oneturn.programs.react.demo_pool import DemoPool
from oneturn.programs.react.grounding import Citation, Seen, SeenNumbers
from oneturn.programs.react.module import ReAct, Thoughts, approving_calls, capture_run_errors
from oneturn.programs.react.scripted_teacher import Demonstration, ScriptedTeacher

__all__ = [
    "Citation",
    "DemoPool",
    "Demonstration",
    "ReAct",
    "ScriptedTeacher",
    "Seen",
    "SeenNumbers",
    "Thoughts",
    "approving_calls",
    "capture_run_errors",
]
