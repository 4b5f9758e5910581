"""The rows of the table: each contender at each load."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import mlflow
import mlflow.dspy

from benchmarks.serving.asking import (
    Ask,
    Measured,
    asking_agent,
    asking_program,
    asking_server,
    calls_of,
    cpu_of,
    measure,
)
from benchmarks.serving.contenders import NaiveAgent, ours, plain, stub_lm, wrapped
from benchmarks.serving.processes import served

CLIENTS = (1, 16, 64)
WARM_UP = 5


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    who: str
    traced: bool
    streamed: bool
    clients: int
    found: Measured

    @property
    def cpu(self) -> float:
        """Seconds of CPU a request."""
        return self.found.cpu / len(self.found.answers)

    def line(self, bare: float) -> str:
        """As Markdown; ``bare`` is what the first row's request cost."""
        found, asked = self.found, len(self.found.answers)
        late = [answer.first_piece for answer in found.whole if answer.first_piece is not None]
        first = f"{1000 * statistics.median(late):.1f} ms" if late and self.streamed else "–"
        return (
            f"| {self.who} | {'yes' if self.traced else 'no'} | {'streamed' if self.streamed else 'at once'} "
            f"| {self.clients} | {found.lm_calls / asked:.2f} | {asked - len(found.whole)} of {asked} "
            f"| {1000 * self.cpu:.1f} ms | × {self.cpu / bare:.2f} | {first} | {len(found.whole) / found.seconds:.1f} |"
        )


def called(lm: str, tracking: str, requests: int) -> Iterator[Row]:
    """In this process: bare ``dspy.ReAct`` first, then each adapter."""
    bare = plain()
    bare.set_lm(stub_lm(lm))

    def row(who: str, ask: Ask, streamed: bool, traced: bool = False) -> Row:
        measure(ask, WARM_UP, 1, _cpu, calls_of(lm))
        return Row(who, traced, streamed, 1, measure(ask, requests, 1, _cpu, calls_of(lm)))

    yield row("`dspy.ReAct`, called", asking_program(bare), streamed=False)
    agent = ours(stub_lm(lm))
    yield row("oneturn, in process", asking_agent(agent, streamed=False), streamed=False)
    yield row("oneturn, in process", asking_agent(agent), streamed=True)
    yield row("oneturn around `dspy.ReAct`, in process", asking_agent(wrapped(stub_lm(lm))), streamed=True)
    yield row("naive adapter, in process", asking_agent(NaiveAgent(stub_lm(lm))), streamed=True)
    with _tracing(tracking):
        yield row("oneturn, in process", asking_agent(agent), streamed=True, traced=True)
        mlflow.dspy.autolog()
        yield row("`dspy.ReAct`, called, `mlflow.dspy.autolog`", asking_program(bare), streamed=False, traced=True)
        mlflow.dspy.autolog(disable=True)


def served_ones(lm: str, tracking: str, requests: int) -> Iterator[Row]:
    """Each in a server of its own, at each load."""
    names = {"ours": "oneturn, served", "naive": "naive adapter under `AgentServer`"}
    for streamed in (False, True):
        for traced in (False, True):
            for name, who in names.items():
                with served(name, lm, tracking if traced else "") as server:
                    ask, cpu = asking_server(server, streamed), cpu_of(server)
                    measure(ask, WARM_UP, 1, cpu, calls_of(lm))
                    for clients in CLIENTS:
                        found = measure(ask, max(requests, 2 * clients), clients, cpu, calls_of(lm))
                        yield Row(who, traced, streamed, clients, found)


@contextmanager
def _tracing(tracking: str) -> Iterator[None]:
    mlflow.set_tracking_uri(tracking)
    mlflow.set_experiment("serving")
    mlflow.tracing.enable()
    try:
        yield
    finally:
        mlflow.tracing.disable()


def _cpu() -> float:
    mlflow.flush_trace_async_logging()
    return time.process_time()
