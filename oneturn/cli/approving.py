"""A person's approval, in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from oneturn.replies import ApprovalRequest, Reply

Verdict = Annotated[
    bool | None,
    typer.Option(
        "--approve/--refuse",
        help="Answer every call that needs a person's approval. Without it, you are asked.",
        show_default=False,
    ),
]

WAITS = 3
"""The exit code of a run that waits for an approval which nobody is there to give."""


def approver(verdict: bool | None) -> Callable[[ApprovalRequest], bool] | None:
    """What says whether a call may be made: the option, or whoever sits at the terminal; ``None`` if nobody does."""
    if verdict is not None:
        return lambda wanted: verdict
    if sys.stdin.isatty():
        return lambda wanted: typer.confirm(f"Call {wanted.name}?")
    return None


def leave_if_waiting(reply: Reply) -> None:
    """End the command with code 3 if the reply waits for an approval."""
    if reply.approvals:
        names = ", ".join(wanted.name for wanted in reply.approvals)
        typer.echo(f"No answer yet: {names} waits for approval. Say --approve or --refuse.", err=True)
        raise typer.Exit(WAITS)
