"""ReAct as a generator of steps, one chat turn a step, one schema-constrained tool call a turn."""

from oneturn.programs.react.grounding import Citation, Seen
from oneturn.programs.react.module import ReAct, failed_runs_kept
from oneturn.programs.react.scripted_teacher import Solution, WorkedExamples

__all__ = ["Citation", "ReAct", "Seen", "Solution", "WorkedExamples", "failed_runs_kept"]
