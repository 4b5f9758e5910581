"""A compile that is killed at random points pays for no answer twice, and ends as if nothing had happened."""

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
from tests.optimizers.killed import Job, asked, in_json

ROOT = Path(__file__).resolve().parents[2]
KILLS = 3


@pytest.fixture(scope="module")
def done() -> Iterator[Callable[[Job], int]]:
    """Does a job in a process of its own; gives what that left with."""
    command = [sys.executable, "-m", "tests.optimizers.killed"]
    with Popen(command, cwd=ROOT, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, text=True) as forking:
        assert forking.stdin is not None
        assert forking.stdout is not None
        tell, told = forking.stdin, forking.stdout

        def done(job: Job) -> int:
            Path(job.folder).mkdir(exist_ok=True)
            tell.write(in_json(job))
            tell.flush()
            return int(told.readline())

        yield done
        tell.close()


def written(folder: Path) -> int:
    """How many answers stand in the journal."""
    (journal,) = folder.glob(".oneturn/compile/*/journal.jsonl")
    return journal.read_text().count('"response"')


@pytest.mark.parametrize("wavers", [False, True], ids=["steady LM", "wavering LM"])
@pytest.mark.parametrize("recipe", [*GENERIC, "two"])
def test_a_compile_that_is_killed_at_random_points_ends_as_one_that_is_not(
    recipe: str, wavers: bool, done: Callable[[Job], int], tmp_path: Path
):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert done(Job(str(whole), "oneturn.ReAct", recipe, wavers)) == 0
    draw = random.Random(f"{recipe}, {wavers}")
    job, needed, known, lost = Job(str(broken), "oneturn.ReAct", recipe, wavers), len(asked(whole)), 0, 0
    for _ in range(KILLS):
        in_line = draw.random() if draw.random() < 0.5 and not wavers else None  # another time it says something else
        fate = replace(job, dies_at=draw.randint(1, needed - known), written=in_line)
        assert done(fate) == -signal.SIGKILL
        known += fate.dies_at - 1
        lost += in_line is not None
    assert done(replace(job, saving=True)) == -signal.SIGKILL
    assert not (broken / "compiled.json").exists()
    assert done(job) == 0
    assert artifact(broken) == artifact(whole)
    assert len(asked(broken)) == needed + lost, "but for the answers that were killed before they were written down"
