"""What ``import oneturn`` gives, and what it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import oneturn


def test_the_names_are_these():
    assert oneturn.__all__ == [
        "Agent",
        "AgentConfig",
        "Approvals",
        "ChatCompletionsProgram",
        "Citation",
        "CompileCallback",
        "ModuleProgram",
        "OneTurnError",
        "ReAct",
        "ResponsesAdapter",
        "Retriever",
        "Seen",
        "Demonstration",
        "SourcedText",
        "ToolError",
        "Work",
        "ScriptedTeacher",
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
        "capture_run_errors",
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
        "build_retriever",
        "running_server",
        "serve",
        "tool",
        "build_tools",
        "write_report",
    ]
    assert set(oneturn.__all__) <= set(dir(oneturn))


@pytest.mark.parametrize("name", oneturn.__all__)
def test_each_name_is_there(name: str):
    assert getattr(oneturn, name) is not None


def test_another_name_is_not():
    with pytest.raises(AttributeError, match="module 'oneturn' has no attribute 'agentic'"):
        _ = oneturn.agentic  # type: ignore[attr-defined]


@pytest.mark.parametrize("statement", ["import oneturn", "import oneturn.cli"])
def test_importing_is_cheap(statement: str):
    heavy = "{'mlflow', 'dspy', 'pandas', 'openai', 'uvicorn'}"
    code = f"import sys; {statement}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
