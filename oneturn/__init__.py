"""oneturn: declare a single-turn DSPy agent, compile it, serve it as an MLflow ResponsesAgent."""

from oneturn.agent import Agent
from oneturn.config import AgentConfig
from oneturn.react import Citation, ReAct, Seen, Solution, WorkedExamples
from oneturn.responses import ResponsesAdapter

__all__ = ["Agent", "AgentConfig", "Citation", "ReAct", "ResponsesAdapter", "Seen", "Solution", "WorkedExamples"]
