"""``oneturn check``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from oneturn.cli.errors import show_error
from oneturn.cli.options import build_console, check_folders
from oneturn.core.terminal import visible_lines

_EXIT_UNREACHABLE = 2


def check(
    url: Annotated[
        str,
        typer.Argument(help="The endpoint: host and port, or the URL of /v1/responses, /responses or /invocations."),
    ],
    contract: Annotated[
        Literal["openresponses", "mlflow"] | None,
        typer.Option(help="What the endpoint promises.", show_default="openresponses at /v1/responses, else mlflow"),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=0, max=64, help="Concurrent streams; 0 skips this probe.")] = 16,
    question: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The question; {marker} becomes a word unique to each request.")
    ] = None,
    echo: Annotated[bool, typer.Option("--echo", help="The agent repeats the marker; losing it is an error.")] = False,
    deterministic: Annotated[
        bool,
        typer.Option("--deterministic", help="The same question has the same answer; compare stream and response."),
    ] = False,
    answered: Annotated[
        bool, typer.Option("--answered", help="The agent runs all its tools itself; each call must have its output.")
    ] = False,
    key_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="The environment variable that holds the bearer token to send.")
    ] = None,
    request: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON object with further fields of each request.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, max=3600, help="Timeout of one answer, in seconds.")] = 120,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on warnings too.")] = False,
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Write the report as JSON; - for stdout.")
    ] = None,
    junit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the report as JUnit XML, for the tests of a CI system.")
    ] = None,
    sarif: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the report as SARIF 2.1.0, for code hosts and editors.")
    ] = None,
) -> None:
    """Check any Responses endpoint: streams, errors, and concurrent requests.

    The contract openresponses is the Open Responses specification and its acceptance suite, mlflow what MLflow and
    Databricks ask of a ResponsesAgent. Sends 14 requests plus the concurrent ones; openresponses sends 13 more. The
    last line of the report says which contract the endpoint passed. Exit code 0: no errors; 1: errors; 2: unreachable
    or access refused.

    Examples:

        oneturn check localhost:8000/v1/responses

        oneturn check localhost:8000 --contract openresponses --junit check.xml --sarif check.sarif

        oneturn check http://127.0.0.1:8000/invocations --concurrency 64 --json report.json

        oneturn check https://my-workspace/serving-endpoints/my_agent --key-env DATABRICKS_TOKEN

        oneturn check http://127.0.0.1:8000 --echo --question "Repeat word for word: {marker}"
    """
    key, extra = _key(key_env), _extra(request)
    if question is not None and "{marker}" not in question:
        raise typer.BadParameter(f"{question!r} has no {{marker}}; add it.", param_hint="--question")
    check_folders({"--json": json_file, "--junit": junit, "--sarif": sarif})

    from oneturn.cli.tables import show_conformance_report
    from oneturn.conformance import check_endpoint, to_junit, to_sarif
    from oneturn.core.urls import with_scheme
    from oneturn.errors import EndpointError

    console = build_console(stderr=True)
    options: dict[str, Any] = {"question": question} if question else {}

    def log(probe: str) -> None:
        console.print(f"check: {probe}", markup=False)

    try:
        with console.status("a stream") as status:
            report = check_endpoint(
                with_scheme(url),
                key=key,
                extra=extra,
                concurrency=concurrency,
                echo=echo,
                deterministic=deterministic,
                answered=answered,
                contract=contract,
                timeout=timeout,
                on_probe=status.update if console.is_terminal else log,
                **options,
            )
    except EndpointError as error:
        show_error(visible_lines(str(error)))
        raise typer.Exit(_EXIT_UNREACHABLE) from None
    if json_file == "-":
        typer.echo(json.dumps(report.to_dict(), indent=2))
    else:
        show_conformance_report(report, build_console(), strict)
        if json_file is not None:
            Path(json_file).write_text(json.dumps(report.to_dict(), indent=2) + "\n")
    if junit is not None:
        junit.write_text(to_junit(report, strict), encoding="utf-8")
    if sarif is not None:
        sarif.write_text(to_sarif(report), encoding="utf-8")
    if not report.passed(strict):
        raise typer.Exit(1)


def _key(name: str | None) -> str | None:
    if name is None:
        return None
    if key := os.environ.get(name):
        return key
    raise typer.BadParameter(f"{name} isn't set in the environment; export it.", param_hint="--key-env")


def _extra(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{path} can't be read as JSON: {error}.", param_hint="--request") from None
    if not isinstance(value, dict):
        raise typer.BadParameter(f"{path} must contain a JSON object.", param_hint="--request")
    return value
