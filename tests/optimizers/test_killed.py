"""A compile that is killed at random points resumes, pays for no answer twice, and ends with the same program."""

from __future__ import annotations

import random
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen

import pytest

from tests.compilation.test_resuming import artifact
from tests.optimizers.clever_agent import GENERIC
from tests.optimizers.killed import Job, answered_prompts, to_json

ROOT = Path(__file__).resolve().parents[2]
KILLS = 3


@pytest.fixture(scope="module")
def run_job() -> Iterator[Callable[[Job], int]]:
    """Run a job in a separate process; return its exit code."""
    command = [sys.executable, "-m", "tests.optimizers.killed"]
    with Popen(command, cwd=ROOT, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        jobs, exit_codes = server.stdin, server.stdout

        def run(job: Job) -> int:
            Path(job.folder).mkdir(exist_ok=True)
            jobs.write(to_json(job))
            jobs.flush()
            return int(exit_codes.readline())

        yield run
        jobs.close()


@pytest.mark.parametrize("varies", [False, True], ids=["deterministic LM", "varying LM"])
@pytest.mark.parametrize("recipe", [*GENERIC, "two"])
def test_killed_compile_resumes_to_the_same_program(
    recipe: str, varies: bool, run_job: Callable[[Job], int], tmp_path: Path
):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run_job(Job(str(whole), "oneturn.ReAct", recipe, varies)) == 0
    draw = random.Random(f"{recipe}, {varies}")
    job, needed = Job(str(broken), "oneturn.ReAct", recipe, varies), len(answered_prompts(whole))
    journalled, lost = 0, 0
    for _ in range(KILLS):
        # A varying LM would give another answer the second time, so its answers aren't lost.
        written = draw.random() if draw.random() < 0.5 and not varies else None
        killed = replace(job, dies_at=draw.randint(1, needed - journalled), written=written)
        assert run_job(killed) == -signal.SIGKILL
        journalled += killed.dies_at - 1
        lost += written is not None
    assert run_job(replace(job, saving=True)) == -signal.SIGKILL
    assert not (broken / "compiled.json").exists()
    assert run_job(job) == 0
    assert artifact(broken) == artifact(whole)
    assert len(answered_prompts(broken)) == needed + lost, "only answers lost before they were written are repeated"
