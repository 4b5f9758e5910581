"""``python -m benchmarks.serving [--requests 200] [--report docs/serving-cost.md]``: all contenders, side by side."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import mlflow

from benchmarks.report import between_marks
from benchmarks.serving.asking import Measured, asking_agent, asking_program, asking_server, cpu_of, measure
from benchmarks.serving.contenders import NaiveAgent, ours, plain, stub_lm, wrapped
from benchmarks.serving.processes import served, stub

CLIENTS = (1, 16, 64)
_HEAD = (
    "| who | clients | requests | lost | CPU a request | of bare | first piece after the LM's | requests a second |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- |"
)


def main() -> None:
    """Measure, print the tables and, if asked to, write them."""
    options = _options()
    mlflow.tracing.disable()
    with stub() as url:
        bare = _bare(url, options.requests)
        rows = [("`dspy.ReAct`, called", 1, bare), *_in_process(url, options.requests)]
        rows += _served(url, options.requests)
    base = bare.cpu / len(bare.answers)
    text = "\n".join([_about(), "", _HEAD, *(_row(name, clients, found, base) for name, clients, found in rows)]) + "\n"
    print(text)
    if options.report:
        path = Path(options.report)
        path.write_text(between_marks(path, text), encoding="utf-8")


def _bare(url: str, requests: int) -> Measured:
    program = plain()
    program.set_lm(stub_lm(url))
    ask = asking_program(program)
    measure(ask, 5, 1, time.process_time)  # warm
    return measure(ask, requests, 1, time.process_time)


def _in_process(url: str, requests: int) -> Iterator[tuple[str, int, Measured]]:
    agents = {"oneturn": ours, "oneturn around `dspy.ReAct`": wrapped, "naive adapter": NaiveAgent}
    for name, build in agents.items():
        ask = asking_agent(build(stub_lm(url)))
        measure(ask, 5, 1, time.process_time)
        yield f"{name}, in process", 1, measure(ask, requests, 1, time.process_time)


def _served(url: str, requests: int) -> Iterator[tuple[str, int, Measured]]:
    names = {"ours": "oneturn", "naive": "naive adapter under `AgentServer`"}
    for traced in (False, True):
        for name, told in names.items():
            with served(name, url, traced) as server:
                ask = asking_server(server)
                measure(ask, 5, 1, cpu_of(server))
                for clients in CLIENTS:
                    found = measure(ask, max(requests, 2 * clients), clients, cpu_of(server))
                    yield f"{told}, served, {'traced' if traced else 'untraced'}", clients, found


def _row(name: str, clients: int, found: Measured, base: float) -> str:
    cpu = found.cpu / len(found.answers)
    late = [answer.first_piece for answer in found.whole if answer.first_piece is not None]
    first = f"{1000 * statistics.median(late):.1f} ms" if late else "–"
    lost = len(found.answers) - len(found.whole)
    rate = len(found.whole) / found.seconds
    return (
        f"| {name} | {clients} | {len(found.answers)} | {lost} | {1000 * cpu:.1f} ms | × {cpu / base:.2f} "
        f"| {first} | {rate:.1f} |"
    )


def _about() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in ("dspy", "mlflow", "openai", "uvicorn"))
    cores = len(os.sched_getaffinity(0))
    return f"- machine: {platform.machine()}, {cores} cores, Python {platform.python_version()}\n- versions: {packages}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=200, help="requests of each contender at each load")
    parser.add_argument("--report", help="a Markdown file to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
