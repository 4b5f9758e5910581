"""Run the cells of the matrix: each client's driver in its environment, against one served agent."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import PIPE
from typing import Any

from tests.clients.agent import Servers, serve_agent
from tests.clients.clients import CLIENTS, MODES, STREAMED, Client
from tests.clients.environments import Environment, EnvironmentUnavailable, ensure_environment
from tests.clients.scenarios import SCENARIOS, Outcome, Scenario
from tests.clients.table import update_table

DRIVERS = Path(__file__).parent / "drivers"
_AT_ONCE = 2  # drivers
_DRIVER_SECONDS = 150
_CLIENT_SECONDS = 30.0  # a client's own timeout
_LEAVE_SECONDS = 2.0  # after which a client that doesn't stream leaves


@dataclasses.dataclass(frozen=True)
class Cell:
    """The result of one cell.

    Attributes:
        problems: what is wrong.
        expected: the reason of a difference that was expected and seen; ``None`` without.
    """

    problems: list[str]
    expected: str | None = None


Cells = dict[tuple[str, str, str], Cell]
"""By client, scenario and mode."""


def run_matrix(names: list[str], *, write: bool) -> int:
    """Run the cells of these clients and print what came out.

    Args:
        names: the clients, as named in ``CLIENTS``.
        write: whether to write the table into the docs rather than compare it.

    Returns:
        The number of the process's exit: 0 if all cells are as expected and, in CI, no client is missing.
    """
    cells: Cells = {}
    versions: dict[str, str] = {}
    missing: dict[str, str] = {}
    with serve_agent() as servers, ThreadPoolExecutor(_AT_ONCE) as pool:
        for name, result in zip(names, pool.map(lambda name: _run_client(name, servers), names), strict=True):
            if isinstance(result, str):
                missing[name] = result
                continue
            versions[name], results = result
            cells.update(results)
            wrong = sum(bool(cell.problems) for cell in results.values())
            print(f"clients: {name} {versions[name]}: {len(results) - wrong} cells right, {wrong} wrong", flush=True)
    problems = [
        f"{name}, {SCENARIOS[scenario].title}, {mode}: {'; '.join(cell.problems)}"
        for (name, scenario, mode), cell in cells.items()
        if cell.problems
    ]
    wrong = len(problems)
    if not missing and not problems and len(names) == len(CLIENTS):
        seen = {key: cell.expected for key, cell in cells.items()}
        problems += update_table(versions, seen, write=write)
    for problem in problems:
        print(problem)
    not_run = "; ".join(f"{name} was not run: {reason}" for name, reason in missing.items()) or "no client is missing"
    print(f"clients: {len(cells)} cells run, {wrong} wrong; {not_run}.")
    return int(bool(problems or (missing and os.environ.get("CI"))))


def _run_client(name: str, servers: Servers) -> tuple[str, Cells] | str:
    client = CLIENTS[name]
    try:
        environment = ensure_environment(client.environment)
    except EnvironmentUnavailable as error:
        return str(error)
    version = environment.version(client.package)
    requests = [_request(name, client, key, mode, servers) for key in SCENARIOS for mode in MODES]
    answers = {answer["cell"]: answer for answer in _drive(client, environment, requests)}
    cells: Cells = {}
    for request in requests:
        scenario, mode = request["scenario"], request["mode"]
        answer = answers.get(request["cell"], {"turns": [], "error": {"type": "driver", "message": "no result"}})
        outcome = Outcome(
            turns=answer["turns"],
            error=answer.get("error"),
            left=answer.get("left", False),
            calls=servers.calls.of(request["cell"]),
        )
        cells[name, scenario, mode] = _judge(client, scenario, mode, outcome)
    return version, cells


def _judge(client: Client, key: str, mode: str, outcome: Outcome) -> Cell:
    problems = SCENARIOS[key].check(outcome, mode == STREAMED)
    difference = client.difference(key, mode)
    if difference is None:
        return Cell(problems)
    if not problems:
        return Cell([f"is right, but a difference is stated: {difference.reason}"])
    others = [problem for problem in problems if not problem.startswith(difference.problems)]
    absent = [start for start in difference.problems if not any(problem.startswith(start) for problem in problems)]
    return Cell([*others, *(f"no longer {start!r}; change the difference" for start in absent)], difference.reason)


def _request(name: str, client: Client, key: str, mode: str, servers: Servers) -> dict[str, Any]:
    scenario: Scenario = SCENARIOS[key]
    cell = f"{name}/{key}/{mode}"
    if client.path is None:
        url = servers.workspace_no_lm_url if scenario.without_lm else servers.workspace_url
    else:
        url = servers.store_url if client.stored else servers.url
        url = (servers.no_lm_url if scenario.without_lm else url) + client.path
    return {
        "cell": cell,
        "scenario": key,
        "plain": key == "plain",
        "mode": mode,
        "url": url,
        "questions": [f"{question} (cell:{cell})" for question in scenario.questions],
        "custom_inputs": scenario.custom_inputs,
        "structured": scenario.structured,
        "approve": scenario.approve,
        "client_tool": scenario.client_tool,
        "leave": scenario.leave,
        "stream": mode == STREAMED,
        "timeout": _LEAVE_SECONDS if scenario.leave and mode != STREAMED else _CLIENT_SECONDS,
    }


def _drive(client: Client, environment: Environment, requests: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Run the driver in a folder of its own, with few of this process's variables, and yield its results."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for file in DRIVERS.iterdir():
            if file.is_file():
                shutil.copy(file, work)
        if (environment.folder / "node_modules").is_dir():
            (work / "node_modules").symlink_to(environment.folder / "node_modules")
        variables = {"PATH": os.environ["PATH"], "HOME": folder, "NO_PROXY": "127.0.0.1"}
        driver, *arguments = client.driver
        command = [str(environment.program), str(work / driver), *arguments]
        asked = "".join(f"{json.dumps(request)}\n" for request in requests)
        with subprocess.Popen(
            command, stdin=PIPE, stdout=PIPE, stderr=PIPE, cwd=work, env=variables, text=True
        ) as process:
            try:
                output, errors = process.communicate(asked, timeout=_DRIVER_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                output, errors = process.communicate()
        lines = [line for line in output.splitlines() if line.startswith("{")]
        if process.returncode or len(lines) < len(requests):
            print(f"clients: {client.title} ended with {process.returncode}:\n{errors[-2000:]}", file=sys.stderr)
        yield from (json.loads(line) for line in lines)
