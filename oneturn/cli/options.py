"""Options shared by several commands, and their handling."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions

    from oneturn.agent import Agent
    from oneturn.responses.reply import ApprovalRequest, Reply


AgentFile = Annotated[Path, typer.Option("--agent", metavar="PATH", help="The file that declares the agent.")]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", metavar="PATH", help="The configuration file, instead of the agent's default."),
]
CustomInputs = Annotated[
    str | None,
    typer.Option("--custom-inputs", metavar="JSON", help="The program's other inputs, as a JSON object."),
]

AsJson = Annotated[
    bool,
    typer.Option(
        "--json", help="Print one JSON object: answer, outputs, sources, approvals, usage and trace_id.", is_flag=True
    ),
]

AGENT_FILE = Path("agent.py")


def check_folders(files: Mapping[str, str | Path | None]) -> None:
    """Check before the work that its files can be written. ``files`` are the options' values; ``-`` is stdout.

    Raises:
        typer.BadParameter: there is no folder for one of them.
    """
    for option, file in files.items():
        if file not in (None, "-") and not Path(str(file)).absolute().parent.is_dir():
            raise typer.BadParameter(f"there is no folder for {file}.", param_hint=option)


def build_console(**options: Any) -> Console:
    """Return a console that shows control characters in remote texts instead of sending them to the terminal."""
    from rich.console import Console
    from rich.segment import Segment

    from oneturn.core.terminal import visible_lines

    class SafeConsole(Console):
        def render(self, renderable: Any, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else Segment(visible_lines(segment.text), segment.style)

    return SafeConsole(**options)


def echo(text: object, *, err: bool = False) -> None:
    """Print a line that may hold remote texts: control characters are shown instead of sent to the terminal."""
    from oneturn.core.terminal import visible_lines

    typer.echo(visible_lines(str(text)), err=err)


def load(agent: Path, config: Path | None) -> Agent:
    """Load the agent that the options name."""
    from oneturn.agent import load_agent

    return load_agent(agent, config)


def parse_custom_inputs(custom_inputs: str | None) -> dict[str, Any] | None:
    """Parse ``--custom-inputs`` as a dict; anything else is a usage error."""
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
        help="Approve or refuse every call that needs approval. By default, prompt for each.",
        show_default=False,
    ),
]


class Policy(str, Enum):
    """What an evaluation or a compile decides on calls that need a person's approval."""

    all = "all"
    none = "none"


ApprovalOption = Annotated[
    Policy | None,
    typer.Option(
        "--approve",
        help="Approve all calls that need approval, which runs them, or none. By default such a run ends there.",
        show_default=False,
    ),
]


def build_policy(policy: Policy | None) -> Callable[[ApprovalRequest], bool] | None:
    """Return the approval policy of the option; ``None`` if the option isn't given."""
    if policy is None:
        return None

    from oneturn.evaluation.approval import approve_all, approve_none

    return approve_all if policy is Policy.all else approve_none


EXIT_WAITING = 3
"""The exit code if a call waits for approval and there is no terminal to prompt on."""


def build_approver(verdict: bool | None) -> Callable[[ApprovalRequest], bool] | None:
    """Return a function that approves calls: by the option, or by a prompt; ``None`` if stdin is not a terminal."""
    if verdict is not None:
        return lambda request: verdict
    if not sys.stdin.isatty():
        return None

    from oneturn.core.terminal import visible

    return lambda request: typer.confirm(f"Call {visible(request.name)} with these arguments?", err=True)


def exit_if_waiting(reply: Reply) -> None:
    """Exit with code 3 if the reply waits for approval."""
    if reply.approvals:
        from oneturn.core.terminal import visible

        names = ", ".join(visible(request.name) for request in reply.approvals)
        typer.echo(f"No answer yet: {names} waits for approval. Pass --approve or --refuse.", err=True)
        raise typer.Exit(EXIT_WAITING)
