"""Kill evaluations and compiles at random moments, and race evaluations for one file.

``python -m tests.proof.interruptions evaluate 30``, likewise ``compile`` and ``race``, prints the figures and fails if
anything is lost or done twice. Each run is a process forked from this one, and is killed from outside with SIGKILL.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import dspy

import oneturn
from oneturn.evaluation import Evaluation
from tests.compilation.agent import ANSWERED, CountingLM, agent
from tests.compilation.test_resuming import artifact

ROWS, THREADS = 200, 4
NAMES = ("rows.jsonl", "rows.csv", "rows.parquet")
_SECONDS_PER_ROW = 0.004


class Recording(dspy.Module):
    """Answers in capitals, and appends each question to ``asked.txt`` first."""

    def __init__(self, folder: Path):
        super().__init__()
        self.folder = folder

    def forward(self, question: str) -> dspy.Prediction:
        """Answer; one question in ten fails."""
        _append(self.folder / "asked.txt", question)
        time.sleep(_SECONDS_PER_ROW)
        if question.endswith("3"):
            raise ValueError("no threes")
        return dspy.Prediction(answer=question.upper())


class SlowLM(CountingLM):
    """The LM of the compile tests, slow enough to be killed anywhere."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        complete = self.engine.complete

        def answer(request: Any) -> Any:
            time.sleep(_SECONDS_PER_ROW)
            return complete(request)

        self.engine.complete = answer


def right(gold: dspy.Example, pred: Any, trace: Any = None) -> float:
    """Score whether the answer is in capitals."""
    return float(pred.answer == gold.question.upper())


def evaluate_in(folder: Path, name: str) -> None:
    """Evaluate, with the rows in ``name``."""
    data = [{"question": f"row {number}"} for number in range(ROWS)]
    oneturn.evaluate(
        Recording(folder),
        data,
        right,
        threads=THREADS,
        output=folder / name,
        inputs=["question"],
        progress=False,
        max_same_errors=None,
    )


def compile_in(folder: Path) -> None:
    """Compile the agent of the compile tests."""
    folder.mkdir(exist_ok=True)
    oneturn.compile(agent(folder, SlowLM(folder)))


def kill_evaluations(folder: Path, kills: int, draw: random.Random) -> Counter[str]:
    """Kill an evaluation again and again, until it is done; start over until ``kills`` processes were killed.

    Raises:
        AssertionError: a row is lost, or was run again although it was in the file.
    """
    figures: Counter[str] = Counter()
    while figures["killed"] < kills:
        name = NAMES[figures["evaluations"] % len(NAMES)]
        place = folder / f"evaluation-{figures['evaluations']}"
        place.mkdir()
        asked = place / "asked.txt"
        recorded: set[str] = set()
        killed = True
        while killed:
            before = len(_lines(asked))
            seconds = draw.uniform(0, 0.15) if figures["killed"] < kills else None
            killed = _is_killed(partial(evaluate_in, place, name), seconds)
            assert not recorded & set(_lines(asked)[before:]), "a row in the file was run again"
            if killed:
                recorded = _recorded(place / f"{name}.partial")
                figures["killed"] += 1
                figures["killed with rows"] += 0 < len(recorded) < ROWS
                figures["killed while finishing"] += len(recorded) == ROWS
        rows = Evaluation.read(place / name).rows
        assert rows["question"].tolist() == [f"row {number}" for number in range(ROWS)], "a row is lost, or there twice"
        assert int(rows["score"].sum()) == ROWS * 9 // 10
        # A kill loses the rows that were running, and those that the main thread had yet to write: see _completed.
        assert len(_lines(asked)) - ROWS <= 2 * THREADS * figures["killed"], "more than the rows under way"
        assert {path.name for path in place.iterdir()} == {name, f".{name}.evaluation", "asked.txt"}
        figures["evaluations"] += 1
        figures["rows asked again, under way when killed"] += len(_lines(asked)) - ROWS
    return figures


def kill_compiles(folder: Path, kills: int, draw: random.Random) -> Counter[str]:
    """Kill a compile again and again, until it is done; start over until ``kills`` processes were killed.

    Raises:
        AssertionError: the program differs from that of an unbroken compile, or a recorded answer was paid again.
    """
    whole = folder / "whole"
    start = time.perf_counter()
    assert _exit_code(_fork(lambda: compile_in(whole))) == 0
    unbroken = time.perf_counter() - start
    needed = len(_lines(whole / ANSWERED))
    figures: Counter[str] = Counter()
    while figures["killed"] < kills:
        place = folder / f"compile-{figures['compiles']}"
        killed = True
        while killed:
            seconds = draw.uniform(0, unbroken / 2) if figures["killed"] < kills else None
            killed = _is_killed(partial(compile_in, place), seconds)
            figures["killed"] += killed
            figures["killed with answers"] += killed and (place / ANSWERED).exists()
        assert artifact(place) == artifact(whole), "another program than without kills"
        (journal,) = place.glob(".oneturn/compile/*/journal.jsonl")
        assert sum('"response":' in line for line in _lines(journal)) == needed, "an answer is lost, or there twice"
        figures["compiles"] += 1
        figures["answers paid again, under way when killed"] += len(_lines(place / ANSWERED)) - needed
    return figures


def race(folder: Path, pairs: int, draw: random.Random) -> Counter[str]:
    """Start pairs of evaluations with the same output at the same moment, or one a little later.

    Raises:
        AssertionError: a row is lost or was asked twice, or both of a pair were refused.
    """
    figures: Counter[str] = Counter()
    for pair in range(pairs):
        name, place = NAMES[pair % len(NAMES)], folder / f"pair-{pair}"
        place.mkdir()
        at = time.monotonic() + 0.05
        delays = (0.0, draw.choice([0.0, 0.0, draw.uniform(0, 0.4)]))
        processes = [_fork(partial(_evaluate_at, place, name, at + delay)) for delay in delays]
        codes = sorted(_exit_code(process) for process in processes)
        assert codes in ([0, 0], [0, REFUSED]), codes
        figures["refused" if REFUSED in codes else "finished before the other began"] += 1
        assert sorted(_lines(place / "asked.txt")) == sorted(f"row {number}" for number in range(ROWS))
        rows = Evaluation.read(place / name).rows
        assert rows["question"].tolist() == [f"row {number}" for number in range(ROWS)]
        figures["pairs"] += 1
    return figures


REFUSED = 3


def _evaluate_at(folder: Path, name: str, at: float) -> None:
    time.sleep(max(0.0, at - time.monotonic()))
    try:
        evaluate_in(folder, name)
    except oneturn.OneTurnError as error:
        if str(error).startswith("Another evaluation is writing"):
            os._exit(REFUSED)
        raise


def _fork(work: Callable[[], object]) -> int:
    """Run ``work`` in a forked process; return its id."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        finally:
            os._exit(code)
    return child


def _exit_code(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def _is_killed(work: Callable[[], object], after: float | None) -> bool:
    """Run ``work`` in a process, and kill it after some seconds; return whether that was before its end.

    Args:
        work: what the process does.
        after: the seconds; ``None`` for never.
    """
    process = _fork(work)
    if after is not None:
        time.sleep(after)
        os.kill(process, signal.SIGKILL)  # a process that has ended keeps its id until its parent waits for it
    code = _exit_code(process)
    assert code in (0, -signal.SIGKILL), code
    return code != 0


def _recorded(path: Path) -> set[str]:
    """The questions of the whole lines of a partial file."""
    lines = path.read_bytes().rpartition(b"\n")[0].splitlines() if path.exists() else []
    return {json.loads(line)["question"] for line in lines[1:]}


def _append(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(f"{line}\n")


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


WORKS = {"evaluate": kill_evaluations, "compile": kill_compiles, "race": race}


def main(arguments: Sequence[str]) -> None:
    """Run one of ``WORKS`` with a count and, if given, a seed."""
    work, count, seed = arguments[0], int(arguments[1]), arguments[2] if len(arguments) > 2 else "1"
    with tempfile.TemporaryDirectory() as folder:
        figures = WORKS[work](Path(folder), count, random.Random(f"{work} {seed}"))
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1:])
