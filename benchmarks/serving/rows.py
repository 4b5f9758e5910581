"""Measure the rows of the table: each contender at each load, with bare ``dspy.ReAct`` before each of its runs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

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
RUNS = 3
WARM_UP = 5
HEAD = (
    "| who | traced | answer | clients | LM calls | lost | CPU a request | of bare | first piece after the LM's "
    "| requests a second |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)

Tracing = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Run:
    """One run of a contender, and the CPU seconds a request of bare ``dspy.ReAct`` right before it."""

    measured: Measured
    bare: float

    @property
    def cpu(self) -> float:
        """CPU seconds a request."""
        return cpu_a_request(self.measured)

    @property
    def ratio(self) -> float:
        """The CPU of bare ``dspy.ReAct`` is 1."""
        return self.cpu / self.bare

    @property
    def first_piece(self) -> float | None:
        """The median seconds from the LM's first piece to the client's."""
        delays = [answer.first_piece for answer in self.measured.complete if answer.first_piece is not None]
        return statistics.median(delays) if delays else None

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.measured.complete) / self.measured.seconds


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    who: str
    traced: bool
    streamed: bool
    clients: int
    runs: list[Run]

    def line(self) -> str:
        """Format the row as Markdown; each figure is the median of the runs, with the smallest and the largest."""
        requests = sum(len(run.measured.answers) for run in self.runs)
        lost = requests - sum(len(run.measured.complete) for run in self.runs)
        calls = sum(run.measured.lm_calls for run in self.runs) / requests
        delays = [run.first_piece for run in self.runs if self.streamed and run.first_piece is not None]
        return (
            f"| {self.who} | {'yes' if self.traced else 'no'} | {'streamed' if self.streamed else 'at once'} "
            f"| {self.clients} | {calls:.2f} | {lost} of {requests} "
            f"| {_spread([1000 * run.cpu for run in self.runs], '{:.1f}')} ms "
            f"| × {_spread([run.ratio for run in self.runs], '{:.2f}')} "
            f"| {_spread([1000 * delay for delay in delays], '{:.1f}') + ' ms' if delays else '–'} "
            f"| {_spread([run.rate for run in self.runs], '{:.1f}')} |"
        )


def cpu_a_request(measured: Measured) -> float:
    """Return the CPU seconds a request."""
    return measured.cpu / len(measured.answers)


def _spread(values: list[float], form: str) -> str:
    if len(values) == 1:
        return form.format(values[0])
    low, high = min(values), max(values)
    return f"{form.format(statistics.median(values))} ({form.format(low)} to {form.format(high)})"


class Measurer:
    """Measures rows against one stub LM.

    Args:
        lm: the URL of the stub LM.
        tracking: the URI of the tracking server for traced rows.
        requests: the number of requests of each run.
        runs: the number of runs of each row.
    """

    def __init__(self, lm: str, tracking: str, requests: int, runs: int = RUNS):
        self._lm = lm
        self._tracking = tracking
        self._requests = requests
        self._runs = runs
        self._bare = plain()
        self._bare.set_lm(stub_lm(lm))
        measure(program_client(self._bare), WARM_UP, 1, _cpu, lm_calls(lm))

    def in_process(self) -> Iterator[Row]:
        """Measure in this process: bare ``dspy.ReAct`` first, then each adapter."""
        yield self._in_process("`dspy.ReAct`, called", program_client(self._bare), streamed=False)
        agent = ours(stub_lm(self._lm))
        yield self._in_process("oneturn, in process", agent_client(agent, streamed=False), streamed=False)
        yield self._in_process("oneturn, in process", agent_client(agent), streamed=True)
        around = agent_client(wrapped(stub_lm(self._lm)))
        yield self._in_process("oneturn around `dspy.ReAct`, in process", around, streamed=True)
        naive = agent_client(NaiveAgent(stub_lm(self._lm)))
        yield self._in_process("naive adapter, in process", naive, streamed=True)
        traced = partial(_tracing, self._tracking)
        yield self._in_process("oneturn, in process", agent_client(agent), streamed=True, tracing=traced)
        name, autologged = "`dspy.ReAct`, called, `mlflow.dspy.autolog`", partial(_autologging, self._tracking)
        yield self._in_process(name, program_client(self._bare), streamed=False, tracing=autologged)

    def served(self, contenders: Iterable[str] = ("ours", "naive")) -> Iterator[Row]:
        """Measure each contender behind its own server, at each load."""
        names = {"ours": "oneturn, served", "naive": "naive adapter under `AgentServer`"}
        for streamed in (False, True):
            for traced in (False, True):
                for name in contenders:
                    with run_server(name, self._lm, self._tracking if traced else "") as server:
                        ask, cpu = server_client(server, streamed), server_cpu(server)
                        measure(ask, WARM_UP, 1, cpu, lm_calls(self._lm))
                        for clients in CLIENTS:
                            yield Row(names[name], traced, streamed, clients, self._measure(ask, clients, cpu))

    def _in_process(self, who: str, ask: Ask, streamed: bool, tracing: Tracing = nullcontext) -> Row:
        with tracing():
            measure(ask, WARM_UP, 1, _cpu, lm_calls(self._lm))
        return Row(who, tracing is not nullcontext, streamed, 1, self._measure(ask, 1, _cpu, tracing))

    def _measure(self, ask: Ask, clients: int, cpu: Callable[[], float], tracing: Tracing = nullcontext) -> list[Run]:
        runs = []
        for _ in range(self._runs):
            bare = measure(program_client(self._bare), max(self._requests // 4, 1), 1, _cpu, lm_calls(self._lm))
            with tracing():
                measured = measure(ask, max(self._requests, 2 * clients), clients, cpu, lm_calls(self._lm))
            runs.append(Run(measured, cpu_a_request(bare)))
        return runs


@contextmanager
def _tracing(tracking: str) -> Iterator[None]:
    mlflow.set_tracking_uri(tracking)
    mlflow.set_experiment("serving")
    mlflow.tracing.enable()
    try:
        yield
    finally:
        mlflow.tracing.disable()


@contextmanager
def _autologging(tracking: str) -> Iterator[None]:
    with _tracing(tracking):
        mlflow.dspy.autolog()
        try:
            yield
        finally:
            mlflow.dspy.autolog(disable=True)


def _cpu() -> float:
    mlflow.flush_trace_async_logging()
    return time.process_time()
