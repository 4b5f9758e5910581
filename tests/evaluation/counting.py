"""A program that notes each row that it does: ``python -m tests.evaluation.counting FOLDER [DIES_AT]`` evaluates it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import dspy

import oneturn

ROWS = 40


class _Rows:
    """Not a part of the program's identity, as its attributes would be."""

    def __init__(self, dies_at: int | None):
        self.dies_at = dies_at
        self.seen = 0


class Counting(dspy.Module):
    """Answers in capitals.

    Args:
        folder: where it notes what it was asked, a line each.
        dies_at: the row at which the process is killed.
    """

    def __init__(self, folder: Path, dies_at: int | None = None):
        super().__init__()
        self.folder = folder
        self.rows = _Rows(dies_at)

    def forward(self, question: str) -> dspy.Prediction:
        self.rows.seen += 1
        if self.rows.seen == self.rows.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        with (self.folder / "done.txt").open("a") as file:
            file.write(f"{question}\n")
        if question.endswith("3"):
            raise ValueError("no threes")
        return dspy.Prediction(answer=question.upper())


def right(gold: dspy.Example, pred: Any, trace: Any = None) -> float:
    """Whether it is in capitals."""
    return float(pred.answer == gold.question.upper())


def rows() -> list[dict[str, str]]:
    """The data."""
    return [{"question": f"row {number}"} for number in range(ROWS)]


def main() -> None:
    """Evaluate, and exit in between if requested."""
    folder = Path(sys.argv[1])
    program = Counting(folder, int(sys.argv[2]) if len(sys.argv) > 2 else None)
    oneturn.evaluate(
        program, rows(), right, threads=3, output=folder / "rows.parquet", inputs=["question"], progress=False
    )


if __name__ == "__main__":
    main()
