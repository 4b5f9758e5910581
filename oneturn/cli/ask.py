"""``oneturn ask``."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oneturn.cli.options import (
    AGENT_FILE,
    AgentFile,
    AsJson,
    ConfigFile,
    CustomInputs,
    Verdict,
    build_approver,
    exit_if_waiting,
    load,
    parse_custom_inputs,
)
from oneturn.core.urls import is_url

if TYPE_CHECKING:
    from oneturn.responses.reply import Reply


def ask(
    question: Annotated[str, typer.Argument(help="The question.")],
    custom_inputs: CustomInputs = None,
    approve: Verdict = None,
    as_json: AsJson = False,
    agent: AgentFile = AGENT_FILE,
    config: ConfigFile = None,
) -> None:
    """Ask the agent in this process, and stream tool calls, answer, other outputs and sources.

    In a pipe, standard output has the answer only; all else goes to standard error.

    Examples:

        oneturn ask "What does it cost?"

        oneturn ask "What does it cost?" --config configs/prod.yaml > answer.txt

        oneturn ask "What does it cost?" --json | jq .outputs

    Exits with 3 if a call waits for approval and stdin is not a terminal.
    """
    inputs = parse_custom_inputs(custom_inputs)
    loaded = load(agent, config)

    from oneturn.serving.terminal import ask

    with _explained_inputs():
        reply = ask(loaded, question, custom_inputs=inputs, approve=build_approver(approve), **_consoles(as_json))
    _finish(reply, as_json, is_local=True)


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
    as_json: AsJson = False,
    agent: AgentFile = AGENT_FILE,
    config: ConfigFile = None,
) -> None:
    """Query a served agent, local or on Databricks; prints the same as `oneturn ask`.

    On Databricks the token comes from DATABRICKS_TOKEN, a service principal or a profile.

    Examples:

        oneturn query localhost:8000 "What does it cost?"

        oneturn query "What does it cost?" --json

        oneturn query https://my-workspace/serving-endpoints/my_agent "What does it cost?"

    Exits with 3 if a call waits for approval and stdin is not a terminal.
    """
    inputs = parse_custom_inputs(custom_inputs)
    if len(arguments) > 2 or (len(arguments) == 1 and is_url(arguments[0])):
        raise typer.BadParameter("pass a URL and a question in quotes.", param_hint="[URL] QUESTION")
    url = arguments[0] if len(arguments) == 2 else _configured_url(agent, config)

    from oneturn.serving.terminal import ask_endpoint

    options: dict[str, Any] = {"custom_inputs": inputs, "api_key": api_key, "approve": build_approver(approve)}
    with _explained_inputs():
        reply = ask_endpoint(url, arguments[-1], **options, **_consoles(as_json))
    _finish(reply, as_json, is_local=False)


@contextmanager
def _explained_inputs() -> Iterator[None]:
    """Add the option to the error of a missing input."""
    from oneturn.errors import OneTurnError

    try:
        yield
    except OneTurnError as error:
        if missing := re.search(r"custom_inputs has no '(\w+)'", str(error)):
            error.args = (f"{error} Pass --custom-inputs '{{\"{missing[1]}\": …}}'.",)
        raise


def _consoles(as_json: bool) -> dict[str, Any]:
    """The consoles of a run: with ``--json``, the run is shown on standard error, without its answer."""
    if not as_json:
        return {}

    from rich.console import Console

    return {"console": Console(file=io.StringIO()), "notes": Console(stderr=True)}


def _finish(reply: Reply, as_json: bool, *, is_local: bool) -> None:
    if as_json:
        from oneturn.serving.outputs import reply_json

        typer.echo(reply_json(reply, is_local=is_local))
    exit_if_waiting(reply)


def _configured_url(agent: Path, config: Path | None) -> str:
    """Return the URL where ``oneturn serve`` listens, with the same options."""
    settings = load(agent, config).config.serve
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host  # noqa: S104 - compares, doesn't bind
    return f"http://{host}:{settings.port}"
