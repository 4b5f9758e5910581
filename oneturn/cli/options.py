"""Options that several commands take, and what they do with them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from oneturn.agent import Agent
    from oneturn.responses.reply import ApprovalRequest, Reply


AgentFile = Annotated[Path, typer.Option("--agent", metavar="PATH", help="The file that declares the agent.")]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", metavar="PATH", help="The configuration to use instead of the agent's own default."),
]
CustomInputs = Annotated[
    str | None,
    typer.Option("--custom-inputs", metavar="JSON", help="The program's other inputs, as a JSON object."),
]

AGENT_FILE = Path("agent.py")


def load(agent: Path, config: Path | None) -> Agent:
    """The agent that the options name."""
    from oneturn.agent import load_agent

    return load_agent(agent, config)


def parsed(custom_inputs: str | None) -> dict[str, Any] | None:
    """``--custom-inputs`` as a dict; anything else is a usage error."""
    if custom_inputs is None:
        return None
    try:
        value = json.loads(custom_inputs)
    except json.JSONDecodeError as error:
        raise typer.BadParameter(f"{custom_inputs!r} isn't JSON: {error}.", param_hint="--custom-inputs") from None
    if not isinstance(value, dict):
        raise typer.BadParameter('must be a JSON object, such as {"region": "EU"}.', param_hint="--custom-inputs")
    return value


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
