"""Run commands and notebooks of a new project in one process: ``python walk.py '["ask", "…"]' '["notebook", "…"]'``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from typer.testing import CliRunner

from oneturn.cli import app


def run(words: list[str]) -> None:
    """Run a command and print its output; a failure ends the walk."""
    print("$ oneturn", *words, flush=True)
    result = CliRunner().invoke(app, words)
    print(result.output, flush=True)
    if result.exit_code:
        raise SystemExit(f"exit code {result.exit_code}: {result.exception!r}")


def run_notebook(name: str) -> None:
    """Run the code cells of a notebook."""
    print("$ notebook", name, flush=True)
    namespace: dict[str, object] = {}
    for cell in json.loads(Path("notebooks", f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), name, "exec"), namespace)
    print({key: value for key, value in namespace.items() if isinstance(value, str)}, flush=True)


if __name__ == "__main__":
    for step in map(json.loads, sys.argv[1:]):
        if step[0] == "notebook":
            run_notebook(step[1])
        else:
            run(step)
