"""oneturn: declare a single-turn DSPy agent, compile it, serve it as an MLflow ResponsesAgent.

Names are imported when they are first used: MLflow and DSPy take seconds to import, ``oneturn --help`` shouldn't.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oneturn.agent import Agent, load_agent
    from oneturn.compilation import CompileCallback, Work, chain, compile, estimate_compile, recipe
    from oneturn.config import AgentConfig
    from oneturn.core.run_context import cancelled, progress
    from oneturn.datasets.check import check_data
    from oneturn.deployment.model_logging import log_model
    from oneturn.deployment.promotion import promote
    from oneturn.errors import OneTurnError, ToolError
    from oneturn.evaluation import evaluate
    from oneturn.evaluation.comparison import compare
    from oneturn.evaluation.report import log_report, write_report
    from oneturn.evaluation.scorers.calibration import calibrate_judge
    from oneturn.evaluation.scorers.mlflow import predict_fn
    from oneturn.programs import ChatCompletionsProgram, ModuleProgram, as_program
    from oneturn.programs.react import Citation, Demonstration, ReAct, ScriptedTeacher, Seen, capture_run_errors
    from oneturn.programs.state import load_compiled
    from oneturn.responses import ResponsesAdapter
    from oneturn.responses.client import query
    from oneturn.retrieval import Retriever, build_retriever, read_markdown
    from oneturn.serving.server import running_server, serve
    from oneturn.serving.terminal import ask
    from oneturn.tools.approvals import Approvals
    from oneturn.tools.decorator import tool
    from oneturn.tools.documents import SourcedText
    from oneturn.toolsets import agent_tool, build_tools, endpoint_tool

__all__ = [
    "Agent",
    "AgentConfig",
    "Approvals",
    "ChatCompletionsProgram",
    "Citation",
    "CompileCallback",
    "Demonstration",
    "ModuleProgram",
    "OneTurnError",
    "ReAct",
    "ResponsesAdapter",
    "Retriever",
    "ScriptedTeacher",
    "Seen",
    "SourcedText",
    "ToolError",
    "Work",
    "agent_tool",
    "as_program",
    "ask",
    "build_retriever",
    "build_tools",
    "calibrate_judge",
    "cancelled",
    "capture_run_errors",
    "chain",
    "check_data",
    "compare",
    "compile",
    "endpoint_tool",
    "estimate_compile",
    "evaluate",
    "load_agent",
    "load_compiled",
    "log_model",
    "log_report",
    "predict_fn",
    "progress",
    "promote",
    "query",
    "read_markdown",
    "recipe",
    "running_server",
    "serve",
    "tool",
    "write_report",
]

_HOMES = {
    "Agent": "oneturn.agent",
    "AgentConfig": "oneturn.config",
    "Approvals": "oneturn.tools.approvals",
    "ChatCompletionsProgram": "oneturn.programs",
    "Citation": "oneturn.programs.react",
    "ModuleProgram": "oneturn.programs",
    "OneTurnError": "oneturn.errors",
    "ReAct": "oneturn.programs.react",
    "ResponsesAdapter": "oneturn.responses",
    "Retriever": "oneturn.retrieval",
    "Seen": "oneturn.programs.react",
    "Demonstration": "oneturn.programs.react",
    "SourcedText": "oneturn.tools.documents",
    "ToolError": "oneturn.errors",
    "ScriptedTeacher": "oneturn.programs.react",
    "agent_tool": "oneturn.toolsets",
    "as_program": "oneturn.programs",
    "ask": "oneturn.serving.terminal",
    "calibrate_judge": "oneturn.evaluation.scorers.calibration",
    "cancelled": "oneturn.core.run_context",
    "check_data": "oneturn.datasets.check",
    "compare": "oneturn.evaluation.comparison",
    "CompileCallback": "oneturn.compilation",
    "Work": "oneturn.compilation",
    "compile": "oneturn.compilation",
    "chain": "oneturn.compilation",
    "estimate_compile": "oneturn.compilation",
    "recipe": "oneturn.compilation",
    "endpoint_tool": "oneturn.toolsets",
    "evaluate": "oneturn.evaluation",
    "capture_run_errors": "oneturn.programs.react",
    "load_agent": "oneturn.agent",
    "load_compiled": "oneturn.programs.state",
    "log_model": "oneturn.deployment.model_logging",
    "log_report": "oneturn.evaluation.report",
    "predict_fn": "oneturn.evaluation.scorers.mlflow",
    "progress": "oneturn.core.run_context",
    "read_markdown": "oneturn.retrieval",
    "build_retriever": "oneturn.retrieval",
    "promote": "oneturn.deployment.promotion",
    "query": "oneturn.responses.client",
    "running_server": "oneturn.serving.server",
    "serve": "oneturn.serving.server",
    "tool": "oneturn.tools.decorator",
    "build_tools": "oneturn.toolsets",
    "write_report": "oneturn.evaluation.report",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'oneturn' has no attribute {name!r}")
    found = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
