"""Errors that a user meets first are one line, and no remote text controls the terminal."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from rich.table import Table
from typer.testing import CliRunner

from oneturn.cli import app, errors
from oneturn.cli.errors import describe
from oneturn.cli.options import build_console
from oneturn.errors import EndpointError

RED = "\x1b[31m"


def run(*arguments: str, **options: Any) -> Any:
    return CliRunner().invoke(app, list(arguments), **options)


def test_an_exception_in_the_agent_file_names_the_user_s_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "agent.py").write_text("def build():\n    return {}['missing']\n\n\nbuild()\n")
    result = run("doctor")
    assert result.exit_code == 1
    assert result.stderr == "Error: agent.py, line 2, in build: KeyError: 'missing'\n"


def test_an_agent_in_another_folder_is_named_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "agent.py").write_text("\nraise RuntimeError('\x1b[2Jbroken')\n")
    result = run("doctor", "--agent", str(tmp_path / "agent.py"))
    assert result.stderr == "Error: agent.py, line 2, in <module>: RuntimeError: \\u001b[2Jbroken\n"


@pytest.mark.parametrize("error", [MlflowException("API request to http://127.0.0.1:9 failed"), PermissionError("no")])
def test_an_error_of_a_service_is_one_line(error: Exception, monkeypatch: pytest.MonkeyPatch):
    def fail(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr("oneturn.agent.load_agent", fail)
    monkeypatch.setattr(errors, "user_place", lambda trace: None)  # this file is in the working directory
    result = run("log")
    assert result.exit_code == 1
    assert result.stderr == f"Error: {type(error).__name__}: {error}\n"


def test_a_defect_keeps_its_traceback():
    assert describe(ValueError("ours")) is None


def test_escape_sequences_never_reach_the_terminal():
    error = EndpointError("\x1b]0;title\x07gone\x1b[2J\r\u202e", "server_error")
    assert describe(error) == r"\u001b]0;title\u0007gone\u001b[2J\u000d\u202e"
    console = build_console(file=io.StringIO(), force_terminal=True, width=60)
    table = Table("name")
    table.add_row("\x1b]0;title\x07gone")
    console.print(table)
    console.print("a\x1b[2Jb", markup=False, highlight=False)
    written = console.file.getvalue()
    assert "\x1b]0" not in written
    assert "\x1b[2J" not in written
    assert r"\u001b[2J" in written


@pytest.mark.parametrize("no_color", ["", "1"])
def test_no_color_is_respected(no_color: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NO_COLOR", no_color)
    result = run("query", "agent", "x", color=True)
    assert (RED in result.stderr) is (not no_color)
    assert os.environ["NO_COLOR"] == no_color
