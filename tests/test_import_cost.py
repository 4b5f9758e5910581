"""``import oneturn`` imports no heavy package, and an agent none that it doesn't use."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("statement", ["import oneturn", "import oneturn.cli"])
def test_import_loads_no_heavy_package(statement: str):
    heavy = "{'mlflow', 'dspy', 'pandas', 'openai', 'uvicorn'}"
    code = f"import sys; {statement}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_agent_loads_no_package_that_it_does_not_use():
    unused = "{'openai', 'sqlalchemy', 'httpx', 'rich', 'uvicorn', 'bm25s', 'mcp'}"
    names = "Agent, AgentConfig, ReAct, ResponsesAdapter, build_tools, tool"
    code = f"import sys, dspy, mlflow.pyfunc; before = set(sys.modules); from oneturn import {names}"
    code += f"; print(sorted({unused} & (set(sys.modules) - before)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
