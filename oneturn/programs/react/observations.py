"""What the LM reads of a step that gave no result: error lines, and the turns of a run that they stand in."""

from __future__ import annotations

from oneturn.programs.react.llm_step import StepCall
from oneturn.programs.react.trajectory import Turn
from oneturn.tools.registry import FINISH

NO_CALL = f"Error: that was no tool call. Call {FINISH} with all outputs, or another tool."
REPEATED = "Error: that call was made before and its result stands above. Call {ending}."
TOO_MANY = "Error: no more tools can be called. Call {ending}."
NOT_YET = f"Error: {FINISH} can't be called yet. Call {{ending}} first."
REFUSED = "Error: a person refused this call"


def turn_of_step(step: StepCall, observation: str) -> Turn:
    """Return a step as a turn with this observation."""
    turn = Turn(thought=step.thought, tool_call=step.call, observation=observation)
    return turn.in_step(False, step.reasoning, step.state)


def refusal(reason: str) -> str:
    """Return the error of a call that a person refused, as :func:`oneturn.tools.registry.failed` takes it."""
    return f"a person refused this call: {reason}" if reason else "a person refused this call"


def has_failed(turn: Turn) -> bool:
    """Return whether a turn's observation is an error."""
    return turn.observation.startswith("Error: ")


def shorten(trajectory: list[Turn]) -> bool:
    """Cut the longest observation in half; return whether there was one worth cutting."""
    longest = max(trajectory, key=lambda turn: len(turn.observation), default=None)
    if longest is None or len(longest.observation) < 80:
        return False
    longest.observation = longest.observation[: len(longest.observation) // 2] + " … (cut: too long)"
    return True
