"""A workspace as tools ask it: with the right credentials, and its refusals as a line that the LM reads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from oneturn.config.tools import Who
from oneturn.control import current
from oneturn.errors import ToolError

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient


def client_maker(credentials: Who) -> Callable[[], WorkspaceClient]:
    """What gives the client of a call: the agent's is kept, that of the user who asks is made for each call."""
    from oneturn.databricks.credentials import workspace_client

    lock = threading.Lock()
    kept: list[WorkspaceClient] = []

    def client() -> WorkspaceClient:
        if credentials == "user":
            return workspace_client("user")
        with lock:
            if not kept:
                kept.append(workspace_client("agent"))
            return kept[0]

    return client


@contextmanager
def told_as_tool_error() -> Iterator[None]:
    """Turn what the workspace refuses into a line that the LM reads.

    Raises:
        ToolError: it refuses something, or can't be reached.
    """
    from databricks.sdk.errors.base import DatabricksError

    try:
        yield
    except DatabricksError as error:
        raise ToolError(first_line(str(error)) or type(error).__name__) from error
    except OSError as error:
        raise ToolError(f"the workspace can't be reached ({type(error).__name__})") from error


def first_line(text: str) -> str:
    """What is said first; the rest is stack traces and configuration."""
    return next(iter(text.strip().splitlines()), "").partition(" Config: ")[0]


def pause(seconds: float) -> None:
    """Wait, no longer than the run may go on.

    Raises:
        RunCancelled: the run has to stop.
    """
    control, stopped = current(), threading.Event()
    with control.waking(stopped.set):
        left = control.remaining()
        stopped.wait(seconds if left is None else min(seconds, left))
    control.check()
