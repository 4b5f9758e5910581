"""Errors that a user meets first are one line, and no remote text controls the terminal."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from rich.table import Table
from typer.testing import CliRunner

from oneturn.cli import app, errors
from oneturn.cli.errors import describe
from oneturn.cli.options import build_console, echo
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


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_syntax_error_in_the_agent_file_names_its_line(
    elsewhere: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / ("elsewhere" if elsewhere else "."))
    (tmp_path / "agent.py").write_text("\nif True\n")
    result = run("doctor", "--agent", str(tmp_path / "agent.py"))
    assert result.exit_code == 1
    assert result.stderr == "Error: agent.py, line 2: SyntaxError: expected ':' (agent.py, line 2)\n"


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


def test_lines_of_commands_show_escape_sequences(capsys: pytest.CaptureFixture[str]):
    echo("Version 3 answers at https://x\x1b]0;title\x07/\u202e")
    assert capsys.readouterr().out == "Version 3 answers at https://x\\u001b]0;title\\u0007/\\u202e\n"


def test_no_command_prints_texts_without_making_them_visible():
    allowed = (
        "typer.echo(json.dumps(",
        "typer.echo(text)",
        "typer.echo(visible_lines(",
        'typer.echo(f"oneturn {version(',
        "typer.echo(comparison.to_json())",
        "typer.echo(reply_json(",
        "typer.echo(calibration.to_json())",
        "typer.echo(format_recipes(",
        'typer.echo(f"Stopped. {command}',
        'typer.echo(f"No answer yet: {names}',
    )
    found = [
        (path.name, line.strip())
        for path in Path(errors.__file__).parent.glob("*.py")
        for line in path.read_text().splitlines()
        if re.search(r"typer\.echo|\bConsole\(\)|(?<![.\w])print\(", line)
    ]
    assert [each for each in found if not each[1].startswith(allowed)] == []


COMPILING = """
from pathlib import Path
from tests.compilation.agent import agent
AGENT = agent(Path(__file__).parent)
"""


def test_no_bars_are_drawn_in_a_pipe(tmp_path: Path):
    (tmp_path / "agent.py").write_text(COMPILING)
    environment = {**os.environ, "PYTHONPATH": str(Path(errors.__file__).parents[2]), "COLUMNS": "60"}
    environment.pop("TQDM_DISABLE", None)
    command = [sys.executable, "-c", "from oneturn.cli import app; app()", "compile"]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert run.returncode == 0, run.stderr.decode()
    for text in (run.stdout.decode(), run.stderr.decode()):
        assert "\r" not in text
        assert "it/s]" not in text
        assert "\x1b" not in text
    assert b"compile, search" in run.stderr, "its own lines of progress are there"
    assert "95% interval" in run.stdout.decode()


@pytest.mark.parametrize("no_color", ["", "1"])
def test_no_color_is_respected(no_color: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NO_COLOR", no_color)
    result = run("query", "agent", "x", color=True)
    assert (RED in result.stderr) is (not no_color)
    assert os.environ["NO_COLOR"] == no_color
