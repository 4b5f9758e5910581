"""Evaluations to report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from oneturn.evaluation.result import Evaluation

SAMPLES = Path(__file__).resolve().parents[3] / "docs" / "samples"

HOSTILE = '</script><script>window.hacked=1</script><img src=x onerror="window.hacked=1">\'"&amp;{{7*7}}\u2028]]>'


def row(number: int, **fields: Any) -> dict[str, Any]:
    """One row of an evaluation, as ``oneturn.evaluate`` has it."""
    return {
        "id": f"example-{number}",
        "category": "even" if number % 2 == 0 else "odd",
        "question": f"What is {number} and {number}?",
        "answer": str(2 * number),
        "pred_answer": str(2 * number),
        "run_tool_calls": [{"name": "add", "arguments": {"a": number, "b": number}, "output": str(2 * number)}],
        "run_sources": ["arithmetic"],
        "lm_calls": 2,
        "prompt_tokens": 100 + number,
        "completion_tokens": 10,
        "seconds": 1.0 + number / 100,
        "trace_id": None,
        "tries": 1,
        "score": 1.0,
        "feedback": None,
        "error": None,
        **fields,
    }


def evaluation(*rows: dict[str, Any]) -> Evaluation:
    return Evaluation(pd.DataFrame(rows))


def failed(number: int, reason: str = "RunError: no answer") -> dict[str, Any]:
    return row(number, pred_answer=None, run_tool_calls=[], score=0.0, feedback=reason, error=reason)


def hostile_rows() -> list[dict[str, Any]]:
    """Two rows with markup wherever there can be text."""
    call = {"name": HOSTILE, "arguments": {HOSTILE: HOSTILE}, "output": HOSTILE}
    texts = dict.fromkeys(("id", "category", "question", "answer", "pred_answer", "feedback", "trace_id"), HOSTILE)
    marked = row(1, **texts, run_tool_calls=[call], run_sources=[HOSTILE], score=0.5, exact=0.5)
    return [
        {**marked, "exact_feedback": HOSTILE, f"pred_{HOSTILE}": HOSTILE, HOSTILE: HOSTILE},
        {**failed(2, HOSTILE), "exact": 0.0, "exact_feedback": None},
    ]


def hostile() -> Evaluation:
    """An evaluation of :func:`hostile_rows`."""
    return evaluation(*hostile_rows())


def support_desk() -> tuple[Evaluation, Evaluation]:
    """The rows of docs/samples: uncompiled, and compiled with worked examples."""
    before, after = (Evaluation.read(SAMPLES / f"support-desk-{name}.jsonl") for name in ("uncompiled", "scripted"))
    return before, after
