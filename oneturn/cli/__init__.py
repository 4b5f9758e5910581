"""The command line: ``oneturn --help``.

Each command imports what it needs when it runs, so that help and usage errors come at once.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from oneturn.cli import (
    ask,
    check,
    compare,
    compile,
    demo,
    diff,
    doctor,
    evaluate,
    judge,
    log,
    promote,
    query,
    report,
    rollback,
    serve,
)
from oneturn.cli.data import data
from oneturn.cli.deploy import deploy
from oneturn.cli.inference_table import from_inference_table
from oneturn.errors import OneTurnError


class Commands(TyperGroup):
    """The commands; an error that oneturn raises on purpose is one line on stderr, and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was given."""
        try:
            return super().invoke(ctx)
        except OneTurnError as error:
            typer.secho(f"Error: {error}", fg=typer.colors.RED, err=True)
            raise typer.Exit(1) from None


app = typer.Typer(
    name="oneturn",
    cls=Commands,
    help="Compile, log, evaluate, serve and ask a single-turn DSPy agent. Run it in the folder of your agent.py.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,  # they may hold secrets
)

for module in (
    ask,
    compile,
    diff,
    log,
    promote,
    evaluate,
    compare,
    report,
    serve,
    query,
    check,
    demo,
    doctor,
    rollback,
):
    app.command()(getattr(module, module.__name__.rpartition(".")[2]))
app.add_typer(deploy, name="deploy")
data.command("from-inference-table")(from_inference_table)
app.add_typer(data)
app.add_typer(judge.app)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"oneturn {version('oneturn')}")
        raise typer.Exit


@app.callback()
def main(
    context: typer.Context,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Set a key of the configuration for this command, such as `lm.model=local/0.5B`; may be given often.",
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """What all commands share."""
    if settings:
        from oneturn.config.files import setting_all

        context.with_resource(setting_all(settings))
