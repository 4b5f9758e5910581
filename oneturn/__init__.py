"""oneturn: declare a single-turn DSPy agent, compile it, serve it as an MLflow ResponsesAgent."""

from oneturn.react import Citation, ReAct, Seen
from oneturn.responses import ResponsesAdapter

__all__ = ["Citation", "ReAct", "ResponsesAdapter", "Seen"]
