"""Options that several commands take, and what they do with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from oneturn.agent import Agent

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
