"""Run compiles in forked processes that may be killed.

``python -m tests.optimizers.killed`` reads one JSON line per compile (:class:`Job`), and writes its exit code.
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
    """A compile, and the point at which its process is killed.

    Attributes:
        folder: the agent's folder.
        program: its name in ``PROGRAMS``.
        recipe: the recipe's name.
        varies: whether the LM's reply to the same prompt varies.
        dies_at: the LM call of this process, from 1, at which it is killed; 0 for none.
        written: the share of that call's journal line that is written, 0 to 1; ``None`` to kill it before
            the LM answers.
        saving: whether it is killed when it saves the program.
    """

    folder: str
    program: str
    recipe: str
    varies: bool = False
    dies_at: int = 0
    written: float | None = None
    saving: bool = False


def answered_prompts(folder: Path) -> list[str]:
    """Return the prompts that the LM has answered in all processes, in order."""
    log = folder / ANSWERED
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def run(job: Job) -> None:
    """Compile, and kill this process where the job says so."""
    folder = Path(job.folder)
    times = Counter(answered_prompts(folder))

    def reply(prompt: str, fields: list[str]) -> str:
        return step(prompt, fields, times[prompt] if job.varies else 0)

    parrot = agent(folder, job.program, reply)
    engine = LMS[folder].engine
    complete, calls = engine.complete, 0

    def answer(request: Request) -> Response:
        nonlocal calls
        calls += 1
        if calls == job.dies_at and job.written is None:
            _die()
        response: Response = complete(request)
        prompt = LMS[folder].prompts[-1][1]
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
        original_write(self, line)

    engine.complete, original_write = answer, Journal._write
    Journal._write = write  # type: ignore[method-assign]
    if job.saving:
        Path.replace = lambda self, target: _die()  # type: ignore[assignment, method-assign, misc, return-value]
    oneturn.compile(parrot, recipe=job.recipe)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _fork(job: Job) -> int:
    """Run the job in a forked process; return its exit code, negative for the signal that killed it."""
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
    os.fsync = lambda file: None  # faster; no power loss is tested
    output = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # DSPy shows its progress on standard output
    for line in sys.stdin:
        output.write(f"{_fork(Job(**json.loads(line)))}\n")


def to_json(job: Job) -> str:
    """Return the input line of a job."""
    return json.dumps(dataclasses.asdict(job)) + "\n"


if __name__ == "__main__":
    main()
