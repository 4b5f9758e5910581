"""Compiles, each in a process of its own that may be killed: one process imports everything, and forks them.

``python -m tests.optimizers.killed`` reads a JSON line a compile (:class:`Job`), and writes what its process left with.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dspy.lm15 import Request, Response

import oneturn
from oneturn.compilation.journal import Journal
from tests.optimizers.clever_agent import LMS, agent, step

ANSWERED = "answered.jsonl"


@dataclass(frozen=True)
class Job:
    """A compile, and where its process is killed.

    Attributes:
        folder: the agent's.
        program: its name in ``PROGRAMS``.
        recipe: the recipe's name.
        wavers: whether the LM may say something else when it is asked the same again.
        dies_at: the LM call of this process, from 1, that is its last; it never is with 0.
        written: how much of that call's line in the journal is written, 0 to 1; ``None`` if the LM doesn't even answer.
        saving: whether it is killed when the program is saved instead.
    """

    folder: str
    program: str
    recipe: str
    wavers: bool = False
    dies_at: int = 0
    written: float | None = None
    saving: bool = False


def asked(folder: Path) -> list[str]:
    """The prompts that the LM has answered in all processes, in order."""
    log = folder / ANSWERED
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def run(job: Job) -> None:
    """Compile, and die on the way if that is wanted."""
    folder = Path(job.folder)
    times = Counter(asked(folder))

    def said(prompt: str, fields: list[str]) -> str:
        return step(prompt, fields, times[prompt] if job.wavers else 0)

    parrot = agent(folder, job.program, said)
    engine = LMS[folder].engine
    complete, calls = engine.complete, 0

    def answer(request: Request) -> Response:
        nonlocal calls
        calls += 1
        if calls == job.dies_at and job.written is None:
            _die()
        response: Response = complete(request)
        prompt = LMS[folder].asked[-1][1]
        times[prompt] += 1
        with (folder / ANSWERED).open("a") as log:
            log.write(json.dumps(prompt) + "\n")
        return response

    def write(self: Journal, line: dict[str, Any]) -> None:
        if "response" in line and calls == job.dies_at and job.written is not None:
            text = json.dumps(line) + "\n"
            with self._path.open("a", encoding="utf-8") as file:
                file.write(text[: int(job.written * len(text))])
            _die()
        whole(self, line)

    engine.complete, whole = answer, Journal._write
    Journal._write = write  # type: ignore[method-assign]
    if job.saving:
        Path.replace = lambda self, target: _die()  # type: ignore[assignment, method-assign, misc, return-value]
    oneturn.compile(parrot, recipe=job.recipe)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _forked(job: Job) -> int:
    """What a process that does the job leaves with: below 0 the signal that killed it."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            run(job)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    """Fork a process for each job of the input."""
    os.fsync = lambda file: None  # the power stays on
    told = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # DSPy shows its progress on standard output
    for line in sys.stdin:
        told.write(f"{_forked(Job(**json.loads(line)))}\n")


def in_json(job: Job) -> str:
    """A line of the input."""
    return json.dumps(dataclasses.asdict(job)) + "\n"


if __name__ == "__main__":
    main()
