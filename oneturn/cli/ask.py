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
    build_approver,
    exit_if_waiting,
    load,
    parse_custom_inputs,
)


def ask(
    question: Annotated[str, typer.Argument(help="The question.")],
    custom_inputs: CustomInputs = None,
    approve: Verdict = None,
    agent: AgentFile = AGENT_FILE,
    config: ConfigFile = None,
) -> None:
    """Ask the agent in this process, and stream tool calls, answer and sources.

    Examples:

        oneturn ask "How many days do I have to return unopened goods?"

        oneturn ask "What does it cost?" --config configs/prod.yaml

    Exits with 3 if a call waits for approval and stdin is not a terminal.
    """
    inputs = parse_custom_inputs(custom_inputs)
    loaded = load(agent, config)

    from oneturn.serving.terminal import ask

    exit_if_waiting(ask(loaded, question, custom_inputs=inputs, approve=build_approver(approve)))


def query(
    arguments: Annotated[
        list[str],
        typer.Argument(metavar="[URL] QUESTION", help="The endpoint (by default the configured one) and the question."),
    ],
    custom_inputs: CustomInputs = None,
    approve: Verdict = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="ONETURN_API_KEY", help="The token to send, if the endpoint requires one.")
    ] = None,
    agent: AgentFile = AGENT_FILE,
    config: ConfigFile = None,
) -> None:
    """Query a served agent, local or on Databricks; prints the same as `oneturn ask`.

    On Databricks the token comes from DATABRICKS_TOKEN, a service principal or a profile.

    Examples:

        oneturn query http://127.0.0.1:8000 "How many days do I have to return unopened goods?"

        oneturn query "Is it dishwasher-safe?"

        oneturn query https://my-workspace/serving-endpoints/my_agent "What does it cost?"

    Exits with 3 if a call waits for approval and stdin is not a terminal.
    """
    inputs = parse_custom_inputs(custom_inputs)
    if len(arguments) > 2:
        raise typer.BadParameter("pass a URL and a question in quotes.", param_hint="[URL] QUESTION")
    url = arguments[0] if len(arguments) == 2 else _configured_url(agent, config)

    from oneturn.serving.terminal import ask_endpoint

    approval = build_approver(approve)
    exit_if_waiting(ask_endpoint(url, arguments[-1], custom_inputs=inputs, api_key=api_key, approve=approval))


def _configured_url(agent: Path, config: Path | None) -> str:
    """Return the URL where ``oneturn serve`` listens, with the same options."""
    settings = load(agent, config).config.serve
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host  # noqa: S104 - compares, doesn't bind
    return f"http://{host}:{settings.port}"
