"""Results files: damaged ones are errors that name the line, and what is read scores as what was written."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import dspy
import pytest

import oneturn
from oneturn.core.row_files import read_rows, write_rows
from oneturn.errors import DataError
from oneturn.evaluation import Evaluation, rescore
from oneturn.evaluation.results_reader import read_records

ROW: dict[str, Any] = {
    "question": "q",
    "pred_answer": "a",
    "score": 1.0,
    "feedback": None,
    "error": None,
    "run_tool_calls": [],
    "run_sources": [],
    "run_approvals": [],
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
        (changed(run_tool_calls="[{bro"), "its run_tool_calls is"),
        (changed(run_sources=5), "its run_sources is 5"),
        (changed(run_approvals="{}"), "its run_approvals is '{}', not a list"),
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
    path.write_text('question,score,error,run_sources\nq,1,,"[]"\nq,1,,"[x"\n')
    with pytest.raises(DataError, match=r"row 3: its run_sources is '\[x', not a list"):
        Evaluation.read(path)


def test_one_line_that_is_not_utf_8_loses_no_other(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"n": 1}\n{"n": "\xe9"}\n\n{"n": 3}\n')
    assert list(read_rows(path)) == [
        ("line 1", {"n": 1}),
        ("line 2", "not UTF-8 (byte 8)"),
        ("line 4", {"n": 3}),
    ]


class Echo(dspy.Module):
    """Answers with the question."""

    def forward(self, question: str) -> dspy.Prediction:
        return dspy.Prediction(answer=question)


EQUAL = lambda gold, pred, trace=None: float(gold.answer == pred.answer)  # noqa: E731


def recorded(path: Path, *pairs: tuple[Any, Any], **fields: Any) -> Path:
    rows = [
        {"id": f"r{n}", "answer": gold, "pred_answer": answer, "score": 0.0, "feedback": None, "error": None, **fields}
        for n, (gold, answer) in enumerate(pairs)
    ]
    write_rows(path, rows)
    return path


def test_corrected_labels_of_examples_replace_the_recorded_ones(tmp_path: Path):
    file = recorded(tmp_path / "rows.jsonl", ("wrong", "right"), ("b", "b"))
    examples = [
        dspy.Example(id="r0", answer="right", note="new").with_inputs("id"),
        dspy.Example(id="r1", answer="b", note=None).with_inputs("id"),
    ]
    again = rescore(file, EQUAL, examples=examples, output=tmp_path / "again.jsonl")
    assert again.rows["score"].tolist() == [1.0, 1.0]
    assert again.rows["answer"].tolist() == ["right", "b"]
    assert again.rows["note"][0] == "new"
    assert rescore(tmp_path / "again.jsonl", EQUAL).score == 1.0


def test_examples_with_other_ids_are_refused(tmp_path: Path):
    file = recorded(tmp_path / "rows.jsonl", ("a", "a"), ("b", "b"))
    examples = [dspy.Example(id=f"t{n}", answer="x").with_inputs("id") for n in range(2)]
    with pytest.raises(DataError, match="a row with the id 'r0', and no example has this id"):
        rescore(file, EQUAL, examples=examples)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_examples_without_ids_are_matched_by_order_and_inputs(suffix: str, tmp_path: Path):
    file = tmp_path / f"rows.{suffix}"
    asked = [("a", datetime.date(2026, 1, 2), 1), ("b", datetime.date(2026, 1, 3), 2)]
    rows = [{"question": text, "day": str(day), "limit": limit, "pred_answer": text} for text, day, limit in asked]
    write_rows(file, [{**row, "score": 0.0, "feedback": None, "error": None} for row in rows])
    examples = [
        dspy.Example(question=text, day=day, limit=limit, answer=text).with_inputs("question", "day", "limit")
        for text, day, limit in asked
    ]
    assert rescore(file, EQUAL, examples=examples).score == 1.0
    with pytest.raises(DataError, match=r"Row 1 of .* has question = 'a', and its example 'b'"):
        rescore(file, EQUAL, examples=examples[::-1])


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    "values", [("0", "1", "2"), ("1.10", "2.00"), ("true", "false"), ("", "7"), (0, 1, None), (1.5, 2.0), ("007", None)]
)
def test_texts_of_digits_and_numbers_score_alike_in_every_format(values: tuple[Any, ...], suffix: str, tmp_path: Path):
    file = recorded(tmp_path / f"rows.{suffix}", *[(value, value) for value in values])
    exact = lambda gold, pred, trace=None: float(  # noqa: E731
        type(gold.answer) is type(pred.answer) and gold.answer == pred.answer
    )
    found = rescore(file, exact)
    assert found.rows["score"].tolist() == [1.0] * len(values), "None is an answer, too"
    read = [row["pred_answer"] for row in read_records(file)]
    assert read == list(values)
    assert [type(value) for value in read] == [type(value) for value in values]


def test_half_a_surrogate_ends_no_rescoring(tmp_path: Path):
    file = recorded(tmp_path / "rows.jsonl", ("a", "a"))

    def metric(gold: Any, pred: Any, trace: Any = None) -> Any:
        raise ValueError("cut \ud83d")

    assert rescore(file, metric).rows["error"].tolist() == ["ValueError: cut \ufffd"]


def test_metric_with_the_name_of_a_label_rescores_nothing(tmp_path: Path):
    file = recorded(tmp_path / "rows.jsonl", ("a", "a"))
    with pytest.raises(DataError, match="The column 'answer' of the data has the name of a result column"):
        rescore(file, {"score": EQUAL, "answer": EQUAL})


def test_metrics_stay_if_the_first_row_failed(tmp_path: Path):
    file = recorded(tmp_path / "rows.jsonl", ("a", None), ("b", "b"))
    file.write_text(file.read_text().replace('"error": null', '"error": "ValueError: no a"', 1))
    found = rescore(file, {"equal": EQUAL, "short": lambda gold, pred, trace=None: 1.0})
    assert found.metrics() == ["equal", "short"]
    assert found.rows["short"].tolist() == [0.0, 1.0]


def test_long_integers_beside_fractions_are_written(tmp_path: Path):
    for suffix in ("csv", "parquet"):
        path = tmp_path / f"rows.{suffix}"
        write_rows(path, [{"n": 2**53 + 1, "m": 2**59}, {"n": 1.5, "m": 1}])
        assert [cells["m"] for _, cells in read_rows(path, infer_types=True)] == [2**59, 1]
        assert str(next(read_rows(path))[1]["n"]) == str(2**53 + 1)


@pytest.mark.parametrize("name", [None, "rows.jsonl", "rows.csv", "rows.parquet"])
def test_logged_rows_have_the_values_of_the_evaluation(name: str | None, tmp_path: Path):
    data = [{"question": "a", "order": 12345678901234567, "ratio": 0.12345678901234}, {"question": "b"}]
    output = None if name is None else tmp_path / name
    found = oneturn.evaluate(Echo(), data, lambda *_: 1.0, inputs=["question"], output=output, progress=False)
    first, second = map(json.loads, found.to_jsonl().splitlines())
    assert (first["order"], first["ratio"], second.get("order")) == (12345678901234567, 0.12345678901234, None)
    assert found.rows["order"][0] == 12345678901234567


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_results_are_read_as_they_were_written(suffix: str, tmp_path: Path):
    same = lambda gold, pred, trace=None: float(json.loads(pred.answer)["n"] == gold.n)  # noqa: E731
    data = [{"question": '{"n": 1}', "n": 1, "price": 1.5}, {"question": '{"n": 2}', "n": 2, "price": float("inf")}]
    file, again = tmp_path / f"rows.{suffix}", tmp_path / f"again.{suffix}"
    found = oneturn.evaluate(Echo(), data, same, inputs=["question"], output=file, progress=False)
    assert rescore(file, same, output=again).score == found.score == 1.0
    for each in (found, Evaluation.read(again)):
        assert each.rows["price"].tolist() == [1.5, float("inf")]
        assert each.rows["pred_answer"].tolist() == [row["question"] for row in data]


def test_types_of_an_edited_csv_file_are_inferred(tmp_path: Path):
    file = tmp_path / "rows.csv"
    rows = [{"question": "a", "note": "[1]"}]
    oneturn.evaluate(Echo(), rows, lambda *_: 1.0, inputs=["question"], output=file, progress=False)
    assert next(read_records(file))["note"] == "[1]"
    file.write_text(file.read_text().replace('"a"', '"b"'))
    assert (next(read_records(file))["question"], next(read_records(file))["note"]) == ("b", [1])
