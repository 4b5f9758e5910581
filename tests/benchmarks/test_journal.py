"""The journal of measured rows."""

from __future__ import annotations

from pathlib import Path

import dspy

from benchmarks.journal import evaluate_with_journal
from oneturn import ReAct
from oneturn.testing import ScriptedLM, finish

ROWS = [dspy.Example(id=f"row-{number}", question="12 * 3?").with_inputs("question") for number in range(2)]


def measured(program: dspy.Module, folder: Path, *replies: object) -> int:
    """The number of the replies that were asked for; each must be used."""
    with ScriptedLM(*replies, free_text=True) as lm:
        rows = evaluate_with_journal("sums", program, ROWS, lambda gold, pred: pred.answer == "36", lm, folder)
    assert rows["score"].tolist() == [1.0, 1.0]
    return len(lm.requests)


def test_rows_are_read_unless_the_format_of_the_replies_differs(tmp_path: Path):
    reply = finish(answer="36")
    assert measured(ReAct("question -> answer", tools=[], thoughts=False), tmp_path, reply, reply) == 2
    assert measured(ReAct("question -> answer", tools=[], thoughts=False), tmp_path) == 0
    assert measured(ReAct("question -> answer", tools=[], thoughts="free"), tmp_path, reply, reply) == 2
