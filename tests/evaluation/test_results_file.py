"""An evaluation with a file: resumable, exactly once, in order, in any format."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dspy
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oneturn
from oneturn.errors import DataError
from oneturn.evaluation.result import Evaluation
from oneturn.evaluation.results_file import ResultsFile
from tests.evaluation.counting import ROWS, Counting, right, rows

ROOT = Path(__file__).resolve().parents[2]


def started(folder: Path, *dies_at: str) -> int:
    command = [sys.executable, "-m", "tests.evaluation.counting", str(folder), *dies_at]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode


def test_an_evaluation_that_is_killed_goes_on_and_does_no_row_twice(tmp_path: Path):
    for dies_at in ("7", "12"):
        assert started(tmp_path, dies_at) == -signal.SIGKILL
    assert started(tmp_path) == 0
    found = pd.read_parquet(tmp_path / "rows.parquet")
    assert found["question"].tolist() == [row["question"] for row in rows()]
    done = (tmp_path / "done.txt").read_text().splitlines()
    assert set(done) == {row["question"] for row in rows()}
    assert len(done) - ROWS <= 2 * 2 * 3, "only what was under way when it was killed is done again"
    assert found.loc[3, "error"] == "ValueError: no threes"
    assert found["score"].sum() == ROWS - 4
    assert not list(tmp_path.glob("*.partial"))


def evaluate(folder: Path, name: str, metric: Any = right, **options: Any) -> Evaluation:
    return oneturn.evaluate(
        Counting(folder), rows(), metric, output=folder / name, inputs=["question"], progress=False, **options
    )


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.parquet"])
def test_the_rows_are_the_same_in_any_format(name: str, tmp_path: Path):
    without = oneturn.evaluate(Counting(tmp_path), rows(), right, inputs=["question"], progress=False)
    found = evaluate(tmp_path, name, threads=4)
    same = ["question", "pred_answer", "score", "tries"]
    expected = without.rows[same].astype(object).where(without.rows[same].notna(), None)
    read = found.rows[same].astype(object).where(found.rows[same].notna(), None)
    assert read.to_dict("records") == expected.to_dict("records")
    assert found.summary()["errors"] == 4


def test_a_file_of_another_evaluation_is_left_alone(tmp_path: Path):
    file = ResultsFile(tmp_path / "rows.jsonl", "another")
    file.add(0, {"question": "row 0"})
    file.close()
    with pytest.raises(DataError, match="belongs to another evaluation"):
        evaluate(tmp_path, "rows.jsonl")
    assert len(evaluate(tmp_path, "rows.jsonl", fresh=True).rows) == ROWS


def test_a_finished_evaluation_is_done_anew_when_it_is_started_again(tmp_path: Path):
    for _ in range(2):
        evaluate(tmp_path, "rows.jsonl")
    assert len((tmp_path / "done.txt").read_text().splitlines()) == 2 * ROWS


def test_a_name_that_no_format_has_is_refused_before_anything_is_done(tmp_path: Path):
    with pytest.raises(DataError, match=r"rows.txt must end in .jsonl, .csv or .parquet"):
        evaluate(tmp_path, "rows.txt")
    assert not (tmp_path / "done.txt").exists()


@given(st.permutations(range(12)), st.integers(0, 11), st.integers(0, 30))
def test_rows_come_back_in_the_order_of_the_data_whenever_it_was_killed(order: list[int], stop: int, half: int):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        first = ResultsFile(path, "k")
        for number in order[:stop]:
            first.add(number, {"n": number, "text": "é\n"})
        first.close()
        with first.partial.open("ab") as file:
            file.write(json.dumps({"__row__": 3, "n": 3, "text": "broken off in the middle"}).encode()[:half])
        second = ResultsFile(path, "k")
        assert [number for number in range(12) if second.done(number)] == sorted(order[:stop])
        for number in order[stop:]:
            second.add(number, {"n": number, "text": "é\n"})
        second.finish()
        assert [json.loads(line)["n"] for line in path.read_text().splitlines()] == list(range(12))


class SparkRow:
    def __init__(self, number: int):
        self._number = number

    def asDict(self, recursive: bool) -> dict[str, Any]:  # noqa: N802  # as Spark names it
        return {"question": f"row {self._number}"}


class SparkTable:
    """Gives its rows one by one, as a Spark table does, and notes what is taken."""

    def __init__(self) -> None:
        self.taken = 0

    def toLocalIterator(self) -> Iterator[SparkRow]:  # noqa: N802  # as Spark names it
        for number in range(100):
            self.taken += 1
            yield SparkRow(number)


def test_no_more_rows_are_taken_than_are_needed():
    table, ahead = SparkTable(), []

    class Watching(dspy.Module):
        def forward(self, question: str) -> dspy.Prediction:
            ahead.append(table.taken - len(ahead))
            return dspy.Prediction(answer=question.upper())

    found = oneturn.evaluate(Watching(), table, right, threads=2, inputs=["question"], progress=False)
    assert found.score == 1.0
    assert len(found.rows) == 100
    assert max(ahead) <= 5
