"""ReAct as a generator of steps, one chat turn a step, one schema-constrained tool call a turn."""

from oneturn.react.module import ReAct
from oneturn.react.grounding import Citation, Seen

__all__ = ["Citation", "ReAct", "Seen"]
