"""``import oneturn`` doesn't import heavy packages."""

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
