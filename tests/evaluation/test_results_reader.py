"""Damaged results files are errors that name the line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from oneturn.core.row_files import read_rows
from oneturn.errors import DataError
from oneturn.evaluation import Evaluation, rescore

ROW: dict[str, Any] = {
    "question": "q",
    "pred_answer": "a",
    "score": 1.0,
    "feedback": None,
    "error": None,
    "pred_tool_calls": [],
    "pred_sources": [],
    "pred_approvals": [],
}
GOOD = json.dumps(ROW).encode() + b"\n"


def changed(**fields: Any) -> bytes:
    return json.dumps({**ROW, **fields}).encode() + b"\n"


@pytest.mark.parametrize(
    ("damaged", "reason"),
    [
        (GOOD[:20], "not JSON"),
        (b"\xff\xfe\n", "not UTF-8"),
        (b"[]\n", "not a JSON object"),
        (changed(score="x"), "its score is 'x'"),
        (changed(score=None), "its score is None"),
        (changed(score=float("nan")), "its score is nan"),
        (b'{"question": "x"}\n', "it has no score"),
        (b'{"score": 1.0}\n', "it has no error"),
        (changed(pred_tool_calls="[{bro"), "its pred_tool_calls is"),
        (changed(pred_sources=5), "its pred_sources is 5"),
        (changed(pred_approvals="{}"), "its pred_approvals is '{}', not a list"),
    ],
)
def test_a_damaged_line_is_named(damaged: bytes, reason: str, tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(GOOD + damaged + GOOD)
    for read in (Evaluation.read, lambda file: rescore(file, lambda gold, pred: 1.0)):
        with pytest.raises(DataError, match=r"rows\.jsonl can't be read: line 2: ") as raised:
            read(path)
        assert reason in str(raised.value)
        assert "\n" not in str(raised.value)


def test_a_damaged_csv_row_is_named(tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_text('question,score,error,pred_sources\nq,1,,"[]"\nq,1,,"[x"\n')
    with pytest.raises(DataError, match=r"row 3: its pred_sources is '\[x', not a list"):
        Evaluation.read(path)


def test_one_line_that_is_not_utf_8_loses_no_other(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"n": 1}\n{"n": "\xe9"}\n\n{"n": 3}\n')
    assert list(read_rows(path)) == [
        ("line 1", {"n": 1}),
        ("line 2", "not UTF-8 (byte 8)"),
        ("line 4", {"n": 3}),
    ]
