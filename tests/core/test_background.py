"""Async functions on the shared background loop, as synchronous code runs them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import subprocess
import sys
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dspy
import pytest

from oneturn.core.background import ConsumerGone, run_async, stream_in_thread
from oneturn.core.run_context import RunContext, current_run
from oneturn.errors import RunCancelled
from oneturn.testing import ScriptedLM


async def forever(started: threading.Event, ended: threading.Event) -> None:
    started.set()
    try:
        await asyncio.Event().wait()
    finally:
        ended.set()


async def thread() -> int:
    return threading.get_ident()


def test_all_threads_share_one_loop():
    with ThreadPoolExecutor(8) as pool:
        threads = set(pool.map(lambda _: run_async(thread), range(40)))
    assert len(threads) == 1
    assert threads != {threading.get_ident()}


def test_it_also_works_inside_a_running_loop():
    async def inside() -> int:
        return run_async(thread)

    assert asyncio.run(inside()) == run_async(thread)


def test_the_callers_context_reaches_the_function():
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    lm = ScriptedLM()

    async def read(argument: int) -> Any:
        return argument, variable.get(), current_run(), dspy.settings.lm

    run = RunContext()
    variable.set("set")
    with run.active(), dspy.context(lm=lm):
        assert run_async(read, 1) == (1, "set", run, lm)


def test_a_cancelled_run_cancels_the_function():
    started, ended, run = threading.Event(), threading.Event(), RunContext()
    with run.active(), ThreadPoolExecutor() as pool:
        call = pool.submit(contextvars.copy_context().run, run_async, forever, started, ended)
        assert started.wait(10)
        run.cancel("client_gone")
        with pytest.raises(RunCancelled, match="client_gone"):
            call.result(10)
    assert ended.wait(10)


def test_the_runs_deadline_cancels_the_function():
    started, ended = threading.Event(), threading.Event()
    outer = RunContext(0.05)
    with RunContext(60, parent=outer).active(), pytest.raises(RunCancelled, match="deadline_exceeded"):
        run_async(forever, started, ended)
    assert not started.is_set() or ended.wait(10)


def test_a_timeout_cancels_the_function():
    started, ended = threading.Event(), threading.Event()
    with pytest.raises(concurrent.futures.TimeoutError):
        run_async(forever, started, ended, timeout=0.05)
    assert not started.is_set() or ended.wait(10)


def test_a_run_that_has_to_stop_calls_nothing():
    started, run = threading.Event(), RunContext()
    run.cancel("client_gone")
    with run.active(), pytest.raises(RunCancelled):
        run_async(forever, started, threading.Event())


@pytest.mark.parametrize("error", [ValueError("no"), RunCancelled("no"), ConsumerGone("no"), SystemExit("no")])
def test_an_exception_reaches_the_caller_and_leaves_the_loop_running(error: BaseException):
    async def fail() -> None:
        raise error

    before = run_async(thread)
    with pytest.raises(type(error), match="no"):
        run_async(fail)
    assert run_async(thread) == before


EXIT = """
import asyncio, os, threading
from oneturn.core.background import run_async

started = threading.Event()

async def forever():
    started.set()
    try:
        await asyncio.Event().wait()
    finally:
        print("cleaned up", flush=True)

async def pid():
    return os.getpid()

threading.Thread(target=run_async, args=(forever,), daemon=True).start()
started.wait()
child = os.fork()
assert run_async(pid) == os.getpid()
if child:
    assert os.waitpid(child, 0)[1] == 0
"""


def test_the_end_of_the_process_cancels_what_still_runs_and_a_fork_has_a_loop_of_its_own():
    command = [sys.executable, "-W", "ignore", "-c", EXIT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "cleaned up\n"), done.stderr


def test_events_that_are_gathered_arrive_in_order_before_the_result():
    asked: list[bool] = []

    def count(emit: Any) -> str:
        for number in range(1000):
            emit(number)
        return "done"

    def gathers() -> bool:
        asked.append(True)
        return True

    def read() -> Generator[int, None, None]:
        results.append((yield from stream_in_thread(count, gathers=gathers)))

    results: list[str] = []
    assert list(read()) == list(range(1000))
    assert results == ["done"]
    assert len(asked) < 500  # it isn't asked for an event that is there already
