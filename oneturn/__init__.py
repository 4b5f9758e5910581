"""oneturn: declare a single-turn DSPy agent, compile it, serve it as an MLflow ResponsesAgent.

Names are imported when they are first used: MLflow and DSPy take seconds to import, ``oneturn --help`` shouldn't.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oneturn.agent import Agent, load_agent
    from oneturn.compilation import CompileListener, Work, compile, composed, estimate_compile, recipe
    from oneturn.config import AgentConfig
    from oneturn.core.run_context import cancelled, progress
    from oneturn.datasets.check import check_data
    from oneturn.deployment.model_logging import log
    from oneturn.deployment.promotion import promote
    from oneturn.errors import OneTurnError, ToolError
    from oneturn.evaluation import evaluate
    from oneturn.evaluation.comparison import compare
    from oneturn.evaluation.report import log_report, write_report
    from oneturn.evaluation.scorers.calibration import calibrate_judge
    from oneturn.evaluation.scorers.mlflow import predict_fn
    from oneturn.programs import ChatCompletionsProgram, ModuleProgram, as_program
    from oneturn.programs.react import Citation, ReAct, Seen, Solution, WorkedExamples, failed_runs_kept
    from oneturn.programs.state import load_compiled
    from oneturn.responses import ResponsesAdapter
    from oneturn.responses.client import query
    from oneturn.retrieval import Retriever, read_markdown, retriever_of
    from oneturn.serving.server import running_server, serve
    from oneturn.serving.terminal import ask
    from oneturn.tools.approvals import Approvals
    from oneturn.tools.decorator import tool
    from oneturn.tools.documents import SourcedText
    from oneturn.toolsets import agent_tool, endpoint_tool, tools_of

__all__ = [
    "Agent",
    "AgentConfig",
    "Approvals",
    "ChatCompletionsProgram",
    "Citation",
    "CompileListener",
    "ModuleProgram",
    "OneTurnError",
    "ReAct",
    "ResponsesAdapter",
    "Retriever",
    "Seen",
    "Solution",
    "SourcedText",
    "ToolError",
    "Work",
    "WorkedExamples",
    "agent_tool",
    "as_program",
    "ask",
    "calibrate_judge",
    "cancelled",
    "check_data",
    "compare",
    "compile",
    "composed",
    "endpoint_tool",
    "estimate_compile",
    "evaluate",
    "failed_runs_kept",
    "load_agent",
    "load_compiled",
    "log",
    "log_report",
    "predict_fn",
    "progress",
    "promote",
    "query",
    "read_markdown",
    "recipe",
    "retriever_of",
    "running_server",
    "serve",
    "tool",
    "tools_of",
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
    "Solution": "oneturn.programs.react",
    "SourcedText": "oneturn.tools.documents",
    "ToolError": "oneturn.errors",
    "WorkedExamples": "oneturn.programs.react",
    "agent_tool": "oneturn.toolsets",
    "as_program": "oneturn.programs",
    "ask": "oneturn.serving.terminal",
    "calibrate_judge": "oneturn.evaluation.scorers.calibration",
    "cancelled": "oneturn.core.run_context",
    "check_data": "oneturn.datasets.check",
    "compare": "oneturn.evaluation.comparison",
    "CompileListener": "oneturn.compilation",
    "Work": "oneturn.compilation",
    "compile": "oneturn.compilation",
    "composed": "oneturn.compilation",
    "estimate_compile": "oneturn.compilation",
    "recipe": "oneturn.compilation",
    "endpoint_tool": "oneturn.toolsets",
    "evaluate": "oneturn.evaluation",
    "failed_runs_kept": "oneturn.programs.react",
    "load_agent": "oneturn.agent",
    "load_compiled": "oneturn.programs.state",
    "log": "oneturn.deployment.model_logging",
    "log_report": "oneturn.evaluation.report",
    "predict_fn": "oneturn.evaluation.scorers.mlflow",
    "progress": "oneturn.core.run_context",
    "read_markdown": "oneturn.retrieval",
    "retriever_of": "oneturn.retrieval",
    "promote": "oneturn.deployment.promotion",
    "query": "oneturn.responses.client",
    "running_server": "oneturn.serving.server",
    "serve": "oneturn.serving.server",
    "tool": "oneturn.tools.decorator",
    "tools_of": "oneturn.toolsets",
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
