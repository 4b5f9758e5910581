"""An evaluation with a file: resumable, exactly once, in order, in any format."""

from __future__ import annotations

import csv
import datetime
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
from typer.testing import CliRunner

import oneturn
from oneturn.cli import app
from oneturn.core.row_files import read_rows, write_rows
from oneturn.errors import DataError
from oneturn.evaluation.rescoring import rescore
from oneturn.evaluation.result import Evaluation
from oneturn.evaluation.results_file import ResultsFile
from oneturn.evaluation.targets import ProgramTarget
from oneturn.testing import ScriptedLM
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


def test_a_finished_evaluation_is_not_run_again(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    first = evaluate(tmp_path, "rows.jsonl")
    again = evaluate(tmp_path, "rows.jsonl")
    assert len((tmp_path / "done.txt").read_text().splitlines()) == ROWS
    assert again.rows.equals(first.rows)
    assert "has all rows of this evaluation already; nothing was run" in caplog.text
    assert not list(tmp_path.glob("*.partial"))
    evaluate(tmp_path, "rows.jsonl", fresh=True)
    assert len((tmp_path / "done.txt").read_text().splitlines()) == 2 * ROWS
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write("\n")
    with pytest.raises(DataError, match="or the file was changed"):
        evaluate(tmp_path, "rows.jsonl")
    assert not list(tmp_path.glob("*.partial"))
    evaluate(tmp_path, "rows.jsonl", fresh=True)
    assert len((tmp_path / "done.txt").read_text().splitlines()) == 3 * ROWS


def other(gold: Any, pred: Any, trace: Any = None) -> float:
    return 0.5


def test_a_finished_file_of_another_evaluation_is_replaced_on_request_only(tmp_path: Path):
    evaluate(tmp_path, "rows.jsonl")
    before = (tmp_path / "rows.jsonl").read_bytes()
    with pytest.raises(DataError, match=r"has the rows of another evaluation.*\(fresh=True, --fresh\)"):
        evaluate(tmp_path, "rows.jsonl", other)
    assert (tmp_path / "rows.jsonl").read_bytes() == before
    assert set(evaluate(tmp_path, "rows.jsonl", other, fresh=True).rows["score"]) == {0.0, 0.5}


def test_a_fresh_evaluation_that_was_interrupted_resumes(tmp_path: Path):
    evaluate(tmp_path, "rows.jsonl")
    key = json.loads((tmp_path / ".rows.jsonl.evaluation").read_text())["evaluation"]
    file = ResultsFile(tmp_path / "rows.jsonl", key, fresh=True)
    file.add(0, {"question": "row 0"})
    file.close()
    again = ResultsFile(tmp_path / "rows.jsonl", key)
    assert (again.finished, again.count) == (False, 1)
    again.close()


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("text", ['{"my": "own notes"}\n', '{"question": "q", "score": 5, "error": null}\n', "broken"])
def test_any_other_file_is_never_replaced(text: str, fresh: bool, tmp_path: Path):
    path = tmp_path / "notes.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match="exists, and isn't the rows of an evaluation"):
        evaluate(tmp_path, "notes.jsonl", fresh=fresh)
    assert path.read_text() == text
    evaluate(tmp_path, "rows.jsonl")
    with pytest.raises(DataError, match="exists, and isn't the rows of an evaluation"):
        rescore(tmp_path / "rows.jsonl", right, output=path)
    assert path.read_text() == text


def test_the_data_is_never_the_output(tmp_path: Path):
    evaluate(tmp_path, "rows.jsonl")
    before = (tmp_path / "rows.jsonl").read_bytes()
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "rows.jsonl")
    for name in ("rows.jsonl", "link.jsonl"):
        with pytest.raises(DataError, match="is the data; name another file"):
            oneturn.evaluate(Counting(tmp_path), tmp_path / "rows.jsonl", right, output=tmp_path / name, fresh=True)
    assert (tmp_path / "rows.jsonl").read_bytes() == before


def test_the_command_refuses_its_data_as_output(tmp_path: Path):
    evaluate(tmp_path, "rows.jsonl")
    path = str(tmp_path / "rows.jsonl")
    for options in (["--fresh"], ["--rescore", str(tmp_path / "others.jsonl")]):
        result = CliRunner().invoke(app, ["evaluate", "--data", path, "--output", path, *options])
        assert result.exit_code == 2
        assert "name another file for the rows" in " ".join(result.output.replace("│", "").split())


def test_rescored_rows_replace_only_themselves(tmp_path: Path):
    evaluate(tmp_path, "rows.jsonl")
    evaluate(tmp_path, "paid.jsonl", other)
    for _ in range(2):
        rescore(tmp_path / "rows.jsonl", other, output=tmp_path / "again.jsonl")
    with pytest.raises(DataError, match=r"paid\.jsonl has the rows of another evaluation"):
        rescore(tmp_path / "rows.jsonl", other, output=tmp_path / "paid.jsonl")


def test_a_finished_file_stays_finished_if_a_later_look_at_it_is_killed(tmp_path: Path):
    evaluate(tmp_path, "rows.jsonl")
    key = json.loads((tmp_path / ".rows.jsonl.evaluation").read_text())["evaluation"]
    ResultsFile(tmp_path / "rows.jsonl", key)._file.close()  # as a kill leaves it: released, the partial file there
    again = ResultsFile(tmp_path / "rows.jsonl", key)
    assert again.finished
    again.close()
    assert not list(tmp_path.glob("*.partial"))


def test_two_evaluations_of_one_file_are_refused(tmp_path: Path):
    command = "import sys; from pathlib import Path; from oneturn.evaluation.results_file import ResultsFile as R"
    held = f"{command}; f = R(Path(sys.argv[1]), 'k'); print('held', flush=True); sys.stdin.read()"
    path = tmp_path / "rows.jsonl"
    arguments = [sys.executable, "-c", held, str(path)]
    with subprocess.Popen(arguments, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        for fresh in (False, True):
            with pytest.raises(DataError, match=r"Another evaluation is writing .*rows\.jsonl"):
                ResultsFile(path, "k", fresh)
        other.communicate("")
    ResultsFile(path, "k").close()


@pytest.mark.parametrize("head", ["", '{"evaluat'])
def test_empty_or_half_written_header_loses_no_row(head: str, tmp_path: Path):
    (tmp_path / "rows.jsonl.partial").write_text(head)
    for dies in (True, False):
        file = ResultsFile(tmp_path / "rows.jsonl", "k")
        if dies:
            file.add(0, {"n": 0})
            file.close()
            continue
        assert file.done(0)
        file.add(1, {"n": 1})
        file.finish()
    assert [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()] == [{"n": 0}, {"n": 1}]


@pytest.mark.parametrize("damage", [b"{broken\n", b'{"n": 1}\n', b"\xff\xfe\n", b"[]\n", b"\n"])
def test_damaged_row_is_run_again(damage: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    file = ResultsFile(tmp_path / "rows.jsonl", "k")
    file.add(0, {"n": 0})
    file.close()
    with file.partial.open("ab") as partial:
        partial.write(damage)
    file = ResultsFile(tmp_path / "rows.jsonl", "k")
    assert "line 3 is damaged; its row is run again" in caplog.text
    assert (file.done(0), file.done(1)) == (True, False)
    for number in (1, 0):  # a row that is there twice counts once
        file.add(number, {"n": number})
    file.finish()
    assert [json.loads(line)["n"] for line in (tmp_path / "rows.jsonl").read_text().splitlines()] == [0, 1]


def test_damaged_header_is_named(tmp_path: Path):
    (tmp_path / "rows.jsonl.partial").write_text('{"evalu\n{"__row__": 0}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl\.partial, line 1 is damaged"):
        ResultsFile(tmp_path / "rows.jsonl", "k")


FULL = """
import resource, sys
from pathlib import Path
from oneturn.core.row_files import read_rows, write_rows
from oneturn.errors import DataError
from tests.evaluation.counting import Counting, right, rows
import oneturn

folder = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    oneturn.evaluate(Counting(folder), rows(), right, output=folder / sys.argv[3], inputs=["question"], progress=False)
except DataError as error:
    print(error)
"""


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.parquet"])
def test_full_disk_is_one_line_and_nothing_is_run_twice(name: str, tmp_path: Path):
    arguments = [sys.executable, "-c", FULL, str(tmp_path)]
    full = subprocess.run([*arguments, "2000", name], cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"{name} can't be written: File too large." in full.stdout
    assert "Traceback" not in full.stderr
    asked = len((tmp_path / "done.txt").read_text().splitlines())
    assert asked < ROWS
    subprocess.run([*arguments, str(10**9), name], cwd=ROOT, check=True)
    assert len(Evaluation.read(tmp_path / name).rows) == ROWS
    assert len((tmp_path / "done.txt").read_text().splitlines()) <= ROWS + 3, (
        "the row that found the disk full, and those ahead"
    )


def test_folder_that_cannot_be_written_is_one_line(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="can't be written: "):
        ResultsFile(tmp_path / "file" / "rows.jsonl", "k")


AWKWARD = [
    {"question": "half \ud83d", "n": 2**70, "on": "=1+1"},
    {"question": "=SUM(A1)", "n": 2**62, "on": "'=x"},
    {"question": "-cmd|' /C calc'!A0", "n": -(2**70), "on": "''@y"},
    {"question": "+49 30", "n": 5, "on": "-5"},
    {"question": "\t=1", "n": 6, "on": "'quoted'"},
]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.parquet"])
def test_awkward_values_neither_end_the_run_nor_get_lost(name: str, tmp_path: Path):
    class Echo(dspy.Module):
        def forward(self, question: str) -> dspy.Prediction:
            return dspy.Prediction(
                answer=question, day=datetime.date(2026, 1, 2), picture=dspy.Image("data:image/png;base64,AAAA")
            )

    data = [{**row, "date": datetime.date(2026, 1, 2)} for row in AWKWARD]
    found = oneturn.evaluate(Echo(), data, lambda *_: 1.0, inputs=["question"], output=tmp_path / name, progress=False)
    assert found.rows["error"].isna().all()
    texts = ["half \ufffd", *(row["question"] for row in AWKWARD[1:])]
    assert found.rows["question"].tolist() == found.rows["pred_answer"].tolist() == texts
    assert found.rows["on"].tolist() == [row["on"] for row in AWKWARD]
    assert [int(value) for value in found.rows["n"]] == [row["n"] for row in AWKWARD]
    assert {str(day)[:10] for day in found.rows["pred_day"]} == {"2026-01-02"}
    assert all("AAAA" in str(picture) for picture in found.rows["pred_picture"])


def test_no_cell_of_a_csv_file_is_a_formula(tmp_path: Path):
    write_rows(tmp_path / "rows.csv", [{"=x": row["question"], "on": row["on"], "score": -1.5} for row in AWKWARD])
    with (tmp_path / "rows.csv").open(newline="") as file:
        cells = [cell for line in csv.reader(file) for cell in line]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "@", "\t", "-c"))]
    assert cells.count("-1.5") == len(AWKWARD), "numbers stay numbers"
    read = [cells for _, cells in read_rows(tmp_path / "rows.csv", infer_types=True)]
    assert [row["on"] for row in read] == [row["on"] for row in AWKWARD]
    assert list(read[0]) == ["=x", "on", "score"]


def test_long_integers_of_a_csv_file_are_not_rounded(tmp_path: Path):
    write_rows(tmp_path / "rows.csv", [{"n": 2**62 + 1}])
    assert [cells for _, cells in read_rows(tmp_path / "rows.csv", infer_types=True)] == [{"n": str(2**62 + 1)}]


def test_half_surrogate_in_a_file_is_a_row(tmp_path: Path):
    (tmp_path / "data.jsonl").write_text('{"question": "a \\ud83d"}\n')
    assert [cells for _, cells in read_rows(tmp_path / "data.jsonl")] == [{"question": "a \ufffd"}]


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


def test_a_rescored_file_stays_the_finished_one(tmp_path: Path):
    evaluate(tmp_path, "rows.jsonl")
    rescore(tmp_path / "rows.jsonl", lambda gold, pred, trace=None: 0.25, output=tmp_path / "rows.jsonl")
    again = evaluate(tmp_path, "rows.jsonl")
    assert len((tmp_path / "done.txt").read_text().splitlines()) == ROWS, "no row is asked again"
    assert set(again.rows["score"]) == {0.0, 0.25}
    rescore(tmp_path / "rows.jsonl", right, output=tmp_path / "elsewhere.jsonl")
    assert not (tmp_path / ".elsewhere.jsonl.evaluation").exists()


def look_up(word: str) -> str:
    """Look a word up."""
    return word


def look_up_all(word: str) -> str:
    """Look all words up."""
    return word


@pytest.mark.parametrize(
    "changed",
    [{"max_iters": 2}, {"thoughts": False}, {"thoughts": "free"}, {"tool_calling": "text"}, {"tools": [look_up_all]}],
)
def test_a_program_with_other_settings_is_another_evaluation(changed: dict[str, Any]):
    settings: dict[str, Any] = {"tools": [look_up], "thoughts": True}
    lm = ScriptedLM()
    key = ProgramTarget(oneturn.ReAct("question -> answer", **settings), lm, False).key()
    assert ProgramTarget(oneturn.ReAct("question -> answer", **settings), lm, False).key() == key
    assert ProgramTarget(oneturn.ReAct("question -> answer", **{**settings, **changed}), lm, False).key() != key
