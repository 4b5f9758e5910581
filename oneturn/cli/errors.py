"""Show errors as one line: oneturn's own, those of services that a user meets first, and those of the user's code."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from types import TracebackType

import click
import typer

from oneturn.core.secrets import redact
from oneturn.core.terminal import visible, visible_lines
from oneturn.errors import OneTurnError

_PACKAGE = Path(__file__).resolve().parents[1]
_SERVICES = ("databricks", "dspy", "httpx", "mlflow", "openai", "requests", "sqlalchemy", "urllib3")
_MAX_CHARS = 400


def describe(error: Exception) -> str | None:
    """Describe an exception in a line; ``None`` for a defect of oneturn's own, which needs its traceback.

    An exception in the user's code is described with the place in that code.
    """
    if isinstance(error, click.ClickException | click.exceptions.Exit | click.Abort):
        return None
    if isinstance(error, OneTurnError):
        return visible_lines(str(error))
    text = visible(" ".join(redact(str(error)).split()))
    text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    text = text if len(text) <= _MAX_CHARS else text[: _MAX_CHARS - 1] + "…"
    if place := _syntax_place(error) or user_place(error.__traceback__):
        return f"{place}: {text}"
    return text if _is_service_error(error) else None


def user_place(trace: TracebackType | None) -> str | None:
    """The last frame of a traceback in the agent's folder: file, line and function; ``None`` if there is none."""
    for frame in reversed(traceback.extract_tb(trace)):
        if name := _user_file(frame.filename):
            return f"{name}, line {frame.lineno}, in {frame.name}"
    return None


def _syntax_place(error: Exception) -> str | None:
    """The place of a syntax error, which no frame has; ``None`` for another error, or one that isn't in the user's."""
    if not isinstance(error, SyntaxError) or not (name := _user_file(error.filename or "")):
        return None
    return f"{name}, line {error.lineno}"


def _user_file(name: str) -> str | None:
    """A file in the agent's folder or the working one, relative to it; ``None`` for any other file."""
    agent_file = getattr(sys.modules.get("agent"), "__file__", None)  # as load_agent names it
    file = Path(name).resolve()
    installed = file.is_relative_to(sys.prefix) or file.is_relative_to(sys.base_prefix)
    if not file.is_file() or installed or file.is_relative_to(_PACKAGE):
        return None
    for root in [Path.cwd().resolve(), *([Path(agent_file).resolve().parent] if agent_file else [])]:
        if file.is_relative_to(root):
            return str(file.relative_to(root))
    return None


def show_error(text: str) -> None:
    """Print an error on stderr, red in a terminal unless ``NO_COLOR`` is set."""
    typer.secho(f"Error: {text}", fg=None if os.environ.get("NO_COLOR") else typer.colors.RED, err=True)


def _is_service_error(error: BaseException | None) -> bool:
    """Whether an exception, or its cause, belongs to a library that talks to a service."""
    while error is not None:
        if type(error).__module__.partition(".")[0] in _SERVICES or isinstance(
            error, ConnectionError | PermissionError
        ):
            return True
        error = error.__cause__
    return False
