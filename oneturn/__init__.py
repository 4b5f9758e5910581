"""oneturn: declare a single-turn DSPy agent, compile it, serve it as an MLflow ResponsesAgent.

Names are imported on first use, because importing MLflow and DSPy takes seconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oneturn.agent import Agent, load_agent
    from oneturn.compilation import compile, recipe
    from oneturn.config import AgentConfig
    from oneturn.core.run_context import cancelled, progress
    from oneturn.deployment import log_model
    from oneturn.errors import EndpointError, OneTurnError, ToolError
    from oneturn.evaluation import Evaluation, evaluate
    from oneturn.programs.react import Citation, ReAct, Seen, SeenNumbers
    from oneturn.programs.state import load_compiled
    from oneturn.responses import Reply, ResponsesAdapter, query
    from oneturn.retrieval import Retriever, build_retriever
    from oneturn.serving import running_server, serve
    from oneturn.tools import Approvals, SourcedText, tool
    from oneturn.toolsets import agent_tool, build_tools, endpoint_tool

__all__ = [
    "Agent",
    "AgentConfig",
    "Approvals",
    "Citation",
    "EndpointError",
    "Evaluation",
    "OneTurnError",
    "ReAct",
    "Reply",
    "ResponsesAdapter",
    "Retriever",
    "Seen",
    "SeenNumbers",
    "SourcedText",
    "ToolError",
    "agent_tool",
    "build_retriever",
    "build_tools",
    "cancelled",
    "compile",
    "endpoint_tool",
    "evaluate",
    "load_agent",
    "load_compiled",
    "log_model",
    "progress",
    "query",
    "recipe",
    "running_server",
    "serve",
    "tool",
]

_MODULES = {
    "Agent": "oneturn.agent",
    "AgentConfig": "oneturn.config",
    "Approvals": "oneturn.tools",
    "Citation": "oneturn.programs.react",
    "EndpointError": "oneturn.errors",
    "Evaluation": "oneturn.evaluation",
    "OneTurnError": "oneturn.errors",
    "ReAct": "oneturn.programs.react",
    "Reply": "oneturn.responses",
    "ResponsesAdapter": "oneturn.responses",
    "Retriever": "oneturn.retrieval",
    "Seen": "oneturn.programs.react",
    "SeenNumbers": "oneturn.programs.react",
    "SourcedText": "oneturn.tools",
    "ToolError": "oneturn.errors",
    "agent_tool": "oneturn.toolsets",
    "build_retriever": "oneturn.retrieval",
    "build_tools": "oneturn.toolsets",
    "cancelled": "oneturn.core.run_context",
    "compile": "oneturn.compilation",
    "endpoint_tool": "oneturn.toolsets",
    "evaluate": "oneturn.evaluation",
    "load_agent": "oneturn.agent",
    "load_compiled": "oneturn.programs.state",
    "log_model": "oneturn.deployment",
    "progress": "oneturn.core.run_context",
    "query": "oneturn.responses",
    "recipe": "oneturn.compilation",
    "running_server": "oneturn.serving",
    "serve": "oneturn.serving",
    "tool": "oneturn.tools",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'oneturn' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
