"""oneturn: declare a single-turn DSPy agent, compile it, serve it as an MLflow ResponsesAgent.

Names are imported when they are first used: MLflow and DSPy take seconds to import, ``oneturn --help`` shouldn't.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oneturn.agent import Agent, load_agent
    from oneturn.agent_tools import agent_tool, endpoint_tool
    from oneturn.approvals import Approvals
    from oneturn.asking import ask
    from oneturn.batch import evaluate
    from oneturn.client import query
    from oneturn.compiled import load_compiled
    from oneturn.compiling import CompileListener, Work, compile, composed, estimate_compile, recipe
    from oneturn.compiling.gate import compare
    from oneturn.compiling.promotion import promote
    from oneturn.config import AgentConfig
    from oneturn.control import cancelled, progress
    from oneturn.elsewhere import tools_of
    from oneturn.errors import OneTurnError, ToolError
    from oneturn.examples.check import check_data
    from oneturn.model_log import log
    from oneturn.programs import ChatCompletionsProgram, ModuleProgram, as_program
    from oneturn.react import Citation, ReAct, Seen, Solution, WorkedExamples, failed_runs_kept
    from oneturn.reporting import log_report, write_report
    from oneturn.responses import ResponsesAdapter
    from oneturn.retrieval import Retriever, read_markdown, retriever_of
    from oneturn.scorers.calibration import calibrate_judge
    from oneturn.scorers.with_mlflow import predict_fn
    from oneturn.serving import running_server, serve
    from oneturn.sourced_text import SourcedText
    from oneturn.tools.declared import tool

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
    "Approvals": "oneturn.approvals",
    "ChatCompletionsProgram": "oneturn.programs",
    "Citation": "oneturn.react",
    "ModuleProgram": "oneturn.programs",
    "OneTurnError": "oneturn.errors",
    "ReAct": "oneturn.react",
    "ResponsesAdapter": "oneturn.responses",
    "Retriever": "oneturn.retrieval",
    "Seen": "oneturn.react",
    "Solution": "oneturn.react",
    "SourcedText": "oneturn.sourced_text",
    "ToolError": "oneturn.errors",
    "WorkedExamples": "oneturn.react",
    "agent_tool": "oneturn.agent_tools",
    "as_program": "oneturn.programs",
    "ask": "oneturn.asking",
    "calibrate_judge": "oneturn.scorers.calibration",
    "cancelled": "oneturn.control",
    "check_data": "oneturn.examples.check",
    "compare": "oneturn.compiling.gate",
    "CompileListener": "oneturn.compiling",
    "Work": "oneturn.compiling",
    "compile": "oneturn.compiling",
    "composed": "oneturn.compiling",
    "estimate_compile": "oneturn.compiling",
    "recipe": "oneturn.compiling",
    "endpoint_tool": "oneturn.agent_tools",
    "evaluate": "oneturn.batch",
    "failed_runs_kept": "oneturn.react",
    "load_agent": "oneturn.agent",
    "load_compiled": "oneturn.compiled",
    "log": "oneturn.model_log",
    "log_report": "oneturn.reporting",
    "predict_fn": "oneturn.scorers.with_mlflow",
    "progress": "oneturn.control",
    "read_markdown": "oneturn.retrieval",
    "retriever_of": "oneturn.retrieval",
    "promote": "oneturn.compiling.promotion",
    "query": "oneturn.client",
    "running_server": "oneturn.serving",
    "serve": "oneturn.serving",
    "tool": "oneturn.tools.declared",
    "tools_of": "oneturn.elsewhere",
    "write_report": "oneturn.reporting",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'oneturn' has no attribute {name!r}")
    found = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
