"""``oneturn ask``."""

from __future__ import annotations

from typing import Annotated

import typer

from oneturn.cli.approving import Verdict, approver, leave_if_waiting
from oneturn.cli.options import AGENT_FILE, AgentFile, ConfigFile, CustomInputs, load, parsed


def ask(
    question: Annotated[str, typer.Argument(help="What to ask.")],
    custom_inputs: CustomInputs = None,
    approve: Verdict = None,
    agent: AgentFile = AGENT_FILE,
    config: ConfigFile = None,
) -> None:
    """Ask the agent in this process; tool calls, answer and sources are shown as they come.

    Examples:

        oneturn ask "How many days do I have to return unopened goods?"

        oneturn ask "What does it cost?" --config configs/prod.yaml

    Exits with 3 if a call waits for an approval, and there is no terminal to ask at.
    """
    inputs = parsed(custom_inputs)
    loaded = load(agent, config)

    from oneturn.asking import ask

    leave_if_waiting(ask(loaded, question, custom_inputs=inputs, approve=approver(approve)))
