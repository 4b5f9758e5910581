"""The report: what it tells, from which files, and where it goes."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oneturn.errors import DataError
from oneturn.evaluation.report import html as view
from oneturn.evaluation.report import log_report, write_report
from oneturn.evaluation.report.mlflow import summary
from oneturn.evaluation.result import Evaluation
from oneturn.evaluation.results_file import ResultsFile
from tests.evaluation.report.samples import HOSTILE, evaluation, failed, hostile, row, support_desk

MARKS = [
    "</script>",
    "<script>",
    "<SCRIPT ",
    "<!--",
    "-->",
    "</style>",
    "</title>",
    "\\",
    '"',
    "'",
    "&lt;",
    "\u2028",
    "{{7*7}}",
]


def page_text(path: Path) -> str:
    """What the page says without its script, as text."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", path.read_text(), flags=re.S)))


def embedded(path: Path) -> dict[str, Any]:
    """The data that the page holds."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(), re.S)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_it_sums_up_the_rows(tmp_path: Path):
    rows = [row(number, score=score, seconds=2.0, cost=0.25) for number, score in enumerate([1.0, 1.0, 0.5, 0.0])]
    text = page_text(
        write_report(tmp_path / "new" / "r.html", evaluation(*rows, {**failed(4), "cost": 0.25}), title="Mine")
    )
    for part in (
        *("Mine", "50.0%", "2 passed", "1 partly right", "1 wrong", "1 no answer: an error"),
        *("10 LM calls", "2.00 per row", "510 tokens read, 50 written", "$1.2500", "2 s, median"),
    ):
        assert part in text


def test_it_compares_pair_by_pair_with_a_baseline(tmp_path: Path):
    before, after = support_desk()
    text = page_text(write_report(tmp_path / "r.html", after, before, names=("uncompiled", "scripted")))
    assert "Against uncompiled +20.8 points from 32.8%" in text
    assert "15 rows better , 3 worse" in text
    assert "5 newly pass; 0 no longer pass." in text


def test_a_baseline_of_other_examples_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match=r"baseline has \d+ examples and lacks 1 of the other evaluation \(example-1\)"):
        write_report(tmp_path / "r.html", evaluation(row(1)), evaluation(row(2)))
    assert not (tmp_path / "r.html").exists()


def test_a_baseline_whose_rows_all_failed_is_reported(tmp_path: Path):
    path = write_report(tmp_path / "r.html", evaluation(row(1)), evaluation(failed(1, "RunError: gone")))
    assert "There is no comparison. baseline has no scores" in page_text(path)
    assert embedded(path)["rows"][0]["before"]["error"] == "RunError: gone"


def test_rows_in_memory_are_compared_with_those_of_a_file(tmp_path: Path):
    rows = [row(1, id="001", expression=None), failed(2)]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(each) + "\n" for each in rows))
    path = write_report(tmp_path / "r.html", evaluation(*rows), Evaluation.read(file))
    assert "0 rows better , 0 worse" in page_text(path)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_each_format_tells_the_same(suffix: str, tmp_path: Path):
    rows = [row(1), failed(2), row(3, score=0.5, feedback="close")]
    results = ResultsFile(tmp_path / f"rows{suffix}", "key")
    for number, each in enumerate(rows):
        results.add(number, each)
    results.finish()
    read = embedded(write_report(tmp_path / "r.html", Evaluation.read(results.path)))["rows"]
    assert [each["state"] for each in read] == ["passed", "error", "partial"]
    assert read[0]["steps"] == [{"name": "add", "arguments": {"a": 1, "b": 1}, "output": "2"}]
    assert read[0]["sources"] == ["arithmetic"]
    assert (read[1]["error"], read[2]["feedback"]) == ("RunError: no answer", "close")


def test_of_repeats_each_is_compared_with_its_own():
    after = [row(1, repeat=0, score=1.0), row(1, repeat=1, score=0.0)]
    before = [row(1, repeat=0, score=0.5), row(1, repeat=1, score=1.0)]
    found = view.iter_rows(evaluation(*after), evaluation(*before), "category", 1.0)
    assert [each["change"] for each in found] == [0.5, -1.0]
    found = view.iter_rows(evaluation(*after), evaluation(row(1, score=0.25)), "category", 1.0)
    assert [each["change"] for each in found] == [0.75, -0.25]


def test_a_truncated_table_says_so_and_keeps_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(view, "ROWS", 2)
    rows = [row(1), row(2), row(3, score=0.5), failed(4)]
    path = write_report(tmp_path / "r.html", evaluation(*rows))
    assert [each["id"] for each in embedded(path)["rows"]] == ["example-3", "example-4"]
    assert "2 of 4 rows are in this table" in page_text(path)
    assert "2 passed" in page_text(path)


def test_a_text_that_is_too_long_is_cut_and_says_so(tmp_path: Path):
    path = write_report(tmp_path / "r.html", evaluation(row(1, pred_answer="a" * 20_007)))
    assert embedded(path)["rows"][0]["answer"].endswith("aa… (7 more characters aren't shown)")


@given(text=st.lists(st.sampled_from(MARKS) | st.text(max_size=5), max_size=8).map("".join))
@settings(max_examples=30, deadline=None)
def test_no_text_ends_the_element_it_stands_in(text: str, tmp_path_factory: pytest.TempPathFactory):
    found = evaluation(row(1, pred_answer=text, question=text, **{f"x{text}": text}))
    path = write_report(tmp_path_factory.getbasetemp() / "any.html", found, title=text)
    page = path.read_text(encoding="utf-8")
    assert len(re.findall(r"<script", page, re.I)) == len(re.findall(r"</script", page, re.I)) == 2
    assert embedded(path)["rows"][0]["answer"] == text


def test_unusual_values_are_written_as_json(tmp_path: Path):
    odd = row(1, when=pd.Timestamp("2026-01-02"), ratio=float("inf"), tags=["a", None], pred_answer=None, seconds=None)
    read = embedded(write_report(tmp_path / "r.html", evaluation(odd)))["rows"][0]
    assert read["labels"]["ratio"] is None
    assert read["labels"]["tags"] == ["a", None]
    assert read["labels"]["when"].startswith("2026-01-02")


def test_the_page_may_run_its_own_script_only(tmp_path: Path):
    page = write_report(tmp_path / "r.html", hostile()).read_text()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert "unsafe" not in policy[1]


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("rows.txt", "", "must end in .jsonl, .csv or .parquet"),
        ("rows.jsonl", None, "doesn't exist: write it with oneturn evaluate --output"),
        ("rows.jsonl", '{"score": 1}\n{', "can't be read: line 2: not JSON"),
        ("rows.parquet", "no table", "can't be read"),
        ("rows.jsonl", "", "has no rows"),
        ("rows.jsonl", '{"question": "q"}\n', "has no column 'score'"),
    ],
)
def test_a_file_that_holds_no_rows_is_named(tmp_path: Path, name: str, text: str | None, reason: str):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=reason):
        Evaluation.read(tmp_path / name)


def test_the_summary_is_markdown():
    before, after = support_desk()
    text = summary(after, before, "A | B", ("un*compiled", "scripted"), "category", 1.0)
    assert text.startswith("# A \\| B\n")
    assert "| score | 53.7% (95% interval 38.5% to 67.7%) |" in text
    assert "## Against un\\*compiled" in text
    assert "| lookup | 90.0% | 46.3% to 98.9% | 5 | 50.0% |" in text


def test_hostile_names_stay_text_in_markdown():
    text = summary(hostile(), None, HOSTILE, ("a", "b"), "category", 1.0)
    assert "<" not in text.replace("\\<", "")


@pytest.mark.usefixtures("traced")
def test_mlflow_gets_page_summary_and_rows(tmp_path: Path):
    found = evaluation(row(1), failed(2))
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("reports", tmp_path.as_uri()))
    new = log_report(found, title="Mine")
    with mlflow.start_run() as run:
        assert log_report(found, found) == run.info.run_id
    assert log_report(found, run_id=new) == new
    client = mlflow.MlflowClient()
    assert client.get_run(new).info.run_name == "Mine"
    assert client.get_run(new).info.status == "FINISHED"
    for run_id in (new, run.info.run_id):
        names = [file.path for file in client.list_artifacts(run_id, "report")]
        assert names == ["report/report.html", "report/rows.jsonl", "report/summary.md"]
    rows = mlflow.artifacts.load_text(f"runs:/{new}/report/rows.jsonl")
    assert [json.loads(line)["error"] for line in rows.splitlines()] == [None, "RunError: no answer"]


def test_an_evaluation_without_the_usual_columns_is_reported(tmp_path: Path):
    rows = pd.DataFrame([{"score": 0.0, "error": "row 1 can't be read"}])
    text = page_text(write_report(tmp_path / "r.html", Evaluation(rows)))
    assert "No row was answered." in text
