"""``oneturn ask``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from oneturn.cli.options import (
    AGENT_FILE,
    AgentFile,
    ConfigFile,
    CustomInputs,
    Verdict,
    approver,
    leave_if_waiting,
    load,
    parsed,
)


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

    from oneturn.serving.terminal import ask

    leave_if_waiting(ask(loaded, question, custom_inputs=inputs, approve=approver(approve)))


def query(
    words: Annotated[
        list[str],
        typer.Argument(metavar="[URL] QUESTION", help="Whom to ask, and what. Without a URL: the configured address."),
    ],
    custom_inputs: CustomInputs = None,
    approve: Verdict = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="ONETURN_API_KEY", help="The token to send, if the endpoint wants one.")
    ] = None,
    agent: AgentFile = AGENT_FILE,
    config: ConfigFile = None,
) -> None:
    """Ask a served agent, here or on Databricks; shown as `oneturn ask` shows it.

    On Databricks the token comes from DATABRICKS_TOKEN, a service principal or a profile.

    Examples:

        oneturn query http://127.0.0.1:8000 "How many days do I have to return unopened goods?"

        oneturn query "Is it dishwasher-safe?"

        oneturn query https://my-workspace/serving-endpoints/support_desk "What does it cost?"

    Exits with 3 if a call waits for an approval, and there is no terminal to ask at.
    """
    inputs = parsed(custom_inputs)
    if len(words) > 2:
        raise typer.BadParameter("give a URL and a question in quotes.", param_hint="[URL] QUESTION")
    url = words[0] if len(words) == 2 else _configured(agent, config)

    from oneturn.serving.terminal import ask_endpoint

    given = approver(approve)
    leave_if_waiting(ask_endpoint(url, words[-1], custom_inputs=inputs, api_key=api_key, approve=given))


def _configured(agent: Path, config: Path | None) -> str:
    """Where ``oneturn serve`` listens, with the same options."""
    settings = load(agent, config).config.serve
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host  # noqa: S104 - reads, doesn't bind
    return f"http://{host}:{settings.port}"
