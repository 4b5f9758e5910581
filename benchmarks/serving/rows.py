"""Measure the rows of the table: each contender at each load."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import mlflow
import mlflow.dspy

from benchmarks.serving.clients import (
    Ask,
    Measured,
    agent_client,
    lm_calls,
    measure,
    program_client,
    server_client,
    server_cpu,
)
from benchmarks.serving.contenders import NaiveAgent, ours, plain, stub_lm, wrapped
from benchmarks.serving.processes import run_server

CLIENTS = (1, 16, 64)
WARM_UP = 5


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    who: str
    traced: bool
    streamed: bool
    clients: int
    measured: Measured

    @property
    def cpu(self) -> float:
        """CPU seconds per request."""
        return self.measured.cpu / len(self.measured.answers)

    def line(self, bare: float) -> str:
        """Format the row as Markdown; ``bare`` is the CPU per request of the first row."""
        measured, requests = self.measured, len(self.measured.answers)
        complete = measured.complete
        delays = [answer.first_piece for answer in complete if answer.first_piece is not None]
        first = f"{1000 * statistics.median(delays):.1f} ms" if delays and self.streamed else "–"
        return (
            f"| {self.who} | {'yes' if self.traced else 'no'} | {'streamed' if self.streamed else 'at once'} "
            f"| {self.clients} | {measured.lm_calls / requests:.2f} | {requests - len(complete)} of {requests} "
            f"| {1000 * self.cpu:.1f} ms | × {self.cpu / bare:.2f} | {first} | {len(complete) / measured.seconds:.1f} |"
        )


def in_process(lm: str, tracking: str, requests: int) -> Iterator[Row]:
    """Measure in this process: bare ``dspy.ReAct`` first, then each adapter."""
    bare = plain()
    bare.set_lm(stub_lm(lm))

    def row(who: str, ask: Ask, streamed: bool, traced: bool = False) -> Row:
        measure(ask, WARM_UP, 1, _cpu, lm_calls(lm))
        return Row(who, traced, streamed, 1, measure(ask, requests, 1, _cpu, lm_calls(lm)))

    yield row("`dspy.ReAct`, called", program_client(bare), streamed=False)
    agent = ours(stub_lm(lm))
    yield row("oneturn, in process", agent_client(agent, streamed=False), streamed=False)
    yield row("oneturn, in process", agent_client(agent), streamed=True)
    yield row("oneturn around `dspy.ReAct`, in process", agent_client(wrapped(stub_lm(lm))), streamed=True)
    yield row("naive adapter, in process", agent_client(NaiveAgent(stub_lm(lm))), streamed=True)
    with _tracing(tracking):
        yield row("oneturn, in process", agent_client(agent), streamed=True, traced=True)
        mlflow.dspy.autolog()
        yield row("`dspy.ReAct`, called, `mlflow.dspy.autolog`", program_client(bare), streamed=False, traced=True)
        mlflow.dspy.autolog(disable=True)


def served(lm: str, tracking: str, requests: int) -> Iterator[Row]:
    """Measure each contender behind its own server, at each load."""
    names = {"ours": "oneturn, served", "naive": "naive adapter under `AgentServer`"}
    for streamed in (False, True):
        for traced in (False, True):
            for name, who in names.items():
                with run_server(name, lm, tracking if traced else "") as server:
                    ask, cpu = server_client(server, streamed), server_cpu(server)
                    measure(ask, WARM_UP, 1, cpu, lm_calls(lm))
                    for clients in CLIENTS:
                        measured = measure(ask, max(requests, 2 * clients), clients, cpu, lm_calls(lm))
                        yield Row(who, traced, streamed, clients, measured)


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
