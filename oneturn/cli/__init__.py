"""The command line: ``oneturn --help``.

Commands import their dependencies when they run, so that help and usage errors stay fast.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from oneturn.cli import ask, check, compile, data, demo, deploy, doctor, evaluate, judge, new, serve
from oneturn.cli.errors import describe, show_error
from oneturn.core.terminal import can_redraw

# LiteLLM fetches a price list at its import otherwise: 8 seconds and four warnings without a network.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
if not can_redraw():  # the bars of DSPy's optimizers, too
    os.environ.setdefault("TQDM_DISABLE", "1")


class Commands(TyperGroup):
    """The command group. It prints errors as one line on stderr and exits with code 1."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # the reader has closed, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the exit's flush fails again
            raise typer.Exit(1) from None
        except Exception as error:
            text = describe(error)
            if text is None:
                raise
            show_error(text)
            raise typer.Exit(1) from None


app = typer.Typer(
    name="oneturn",
    cls=Commands,
    help="Compile, log, evaluate, serve and query a single-turn DSPy agent. Run it in the folder of your agent.py.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,  # locals may contain secrets
)

for command in (
    new.new,
    ask.ask,
    compile.compile,
    compile.diff,
    deploy.log,
    deploy.promote,
    evaluate.evaluate,
    evaluate.compare,
    evaluate.report,
    serve.serve,
    ask.query,
    check.check,
    demo.demo,
    doctor.doctor,
    deploy.rollback,
):
    app.command()(command)
app.add_typer(deploy.deploy, name="deploy")
data.data.command("from-inference-table")(data.from_inference_table)
app.add_typer(data.data)
app.add_typer(judge.app)


def _show_version(requested: bool) -> None:
    if requested:
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
            help="Set a configuration key for this command, such as `lm.model=local/0.5B`; repeatable.",
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options of all commands."""
    if settings:
        from oneturn.config.loading import setting_all

        context.with_resource(setting_all(settings))
