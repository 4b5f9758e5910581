"""Rows are read and written in every format, and all bad rows of a file are reported together."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import dspy
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from oneturn.core import csv_files
from oneturn.core.examples import read_examples
from oneturn.core.row_files import SUFFIXES, read_rows, write_rows
from oneturn.datasets.rows import dataset_hash, interleave, load_rows, spread, to_examples
from oneturn.errors import DataError


class Source(BaseModel):
    name: str
    page: int | None = None


class Item(BaseModel):
    question: str
    answer: str = ""
    kind: Literal["easy", "hard"] = "easy"
    score: float | None = None
    day: datetime.date | None = None
    sources: list[Source] = []
    main: Source | None = None


ITEMS = [
    Item(question="Where is Cork?", answer="Ireland", score=0.5, sources=[Source(name="atlas", page=3)]),
    Item(question='Says "who",\nand why?', kind="hard", day=datetime.date(2025, 6, 17), main=Source(name="a, b")),
]

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
SOURCES = st.builds(Source, name=TEXT, page=st.none() | st.integers(-(2**40), 2**40))
ROWS = st.builds(
    Item,
    question=TEXT,
    answer=TEXT,
    kind=st.sampled_from(["easy", "hard"]),
    score=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    day=st.none() | st.dates(),
    sources=st.lists(SOURCES, max_size=3),
    main=st.none() | SOURCES,
)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_rows_survive_a_round_trip(tmp_path: Path, suffix: str) -> None:
    write_rows(tmp_path / f"rows{suffix}", dumped(ITEMS))
    assert load_rows(tmp_path / f"rows{suffix}", Item) == ITEMS


def test_equal_rows_have_the_same_hash() -> None:
    assert dataset_hash([{"score": -0.0, "all": [-0.0]}]) == dataset_hash([{"score": 0.0, "all": [0.0]}])
    assert dataset_hash([{"score": -0.5}]) != dataset_hash([{"score": 0.5}])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows=st.lists(ROWS, min_size=1, max_size=5), suffix=st.sampled_from(SUFFIXES))
def test_any_rows_survive_a_round_trip(tmp_path: Path, rows: list[Item], suffix: str) -> None:
    path = tmp_path / f"rows{suffix}"
    write_rows(path, dumped(rows))
    assert load_rows(path, Item) == rows
    assert dataset_hash(path, Item) == dataset_hash(rows)


def test_a_csv_from_a_spreadsheet_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('question,answer,score,sources,main\nWhy?,,,"[{""name"": ""atlas""}]",\n', encoding="utf-8")
    assert load_rows(path, Item) == [Item(question="Why?", sources=[Source(name="atlas")])]


def test_a_parquet_file_with_native_nesting_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pd.DataFrame([{"question": "Why?", "sources": [{"name": "atlas", "page": 3}]}]).to_parquet(path)
    assert load_rows(path, Item) == [Item(question="Why?", sources=[Source(name="atlas", page=3)])]


def test_blank_lines_of_jsonl_are_skipped_but_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", '{"question": "Why?"}\n\n{"answer": "So"}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl, line 3: question: Field required"):
        load_rows(path, Item)


def test_all_bad_lines_of_jsonl_are_reported(tmp_path: Path) -> None:
    lines = ['{"question": "Fine?"}', "{broken", '["a list"]', '{"question": 7, "kind": "odd"}']
    message = failure(write(tmp_path / "rows.jsonl", "\n".join(lines)))
    assert "can't be loaded as Item rows (3 invalid)" in message
    assert "rows.jsonl, line 2: not JSON (" in message
    assert "rows.jsonl, line 3: not a JSON object: list" in message
    assert "rows.jsonl, line 4: question: Input should be a valid string; kind: Input should be 'easy'" in message
    assert "line 1:" not in message


def test_bad_rows_of_csv_are_reported_with_spreadsheet_row_numbers(tmp_path: Path) -> None:
    lines = ["question,sources,score", '"two\nlines?",[],1', "short,[]", "nested?,[{],", "number?,[],much", "a,[],1,2"]
    message = failure(write(tmp_path / "rows.csv", "\n".join(lines) + "\n"))
    assert "(4 invalid)" in message
    assert "rows.csv, row 3: has 2 cells, the header has 3" in message
    assert "rows.csv, row 4: sources: not JSON" in message
    assert "rows.csv, row 5: score: Input should be a valid number" in message
    assert "rows.csv, row 6: has 4 cells, the header has 3" in message


def test_bad_rows_of_parquet_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pd.DataFrame({"question": ["Why?", None], "kind": ["hard", "easy"]}).to_parquet(path)
    assert "rows.parquet, row 2: question: Input should be a valid string" in failure(path)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("rows.xlsx", b"", r"rows\.xlsx must end in \.jsonl, \.csv or \.parquet"),
        ("rows.jsonl", None, r"can't be read: .*No such file"),
        ("rows.csv", None, r"can't be read: .*No such file"),
        ("rows.csv", b"", r"can't be read: .*[Ee]mpty"),
        ("rows.jsonl", b'{"question": "\xff"}', r"line 1: not UTF-8"),
        ("rows.parquet", b"not parquet", r"can't be read: .*[Pp]arquet"),
    ],
)
def test_unreadable_file_is_an_error_with_reason(tmp_path: Path, name: str, content: bytes | None, reason: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=reason):
        load_rows(tmp_path / name, Item)


def test_long_csv_is_read_completely(tmp_path: Path) -> None:
    rows = [Item(question=f"Question {number}? " + "word " * 50) for number in range(9000)]
    write_rows(tmp_path / "rows.csv", dumped(rows))
    assert len(load_rows(tmp_path / "rows.csv", Item)) == 9000


def test_bad_rows_are_named_in_each_block_of_a_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_files, "_BLOCK_BYTES", 64)
    lines = ["question,score", *("short" if number % 10 == 0 else f"Question {number}?,1" for number in range(2, 102))]
    places = dict(read_rows(write(tmp_path / "rows.csv", "\n".join(lines) + "\n")))
    assert list(places) == [f"row {number}" for number in range(2, 102)]
    bad = [place for place, cells in places.items() if isinstance(cells, str)]
    assert bad == [f"row {number}" for number in range(10, 102, 10)]
    assert places["row 99"] == {"question": "Question 99?", "score": "1"}


def test_types_of_a_csv_column_are_inferred_from_all_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_files, "_BLOCK_BYTES", 64)
    rows = [
        {"whole": number, "share": number / 2, "flag": number > 3, "code": f"0{number}", "mixed": number, "label": "NA"}
        for number in range(40)
    ]
    rows += [{"whole": None, "share": None, "flag": None, "code": "1", "mixed": "many", "label": ""}]
    write_rows(tmp_path / "rows.csv", rows)
    read = [cells for _, cells in read_rows(tmp_path / "rows.csv", infer_types=True)]
    assert read == [{**row, "mixed": str(row["mixed"])} for row in rows]


def test_a_whole_number_that_no_column_holds_is_written_as_text(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.parquet", [{"n": 2**70}, {"n": 1}])
    assert [cells for _, cells in read_rows(tmp_path / "rows.parquet")] == [{"n": 2**70}, {"n": 1}]
    assert pd.read_parquet(tmp_path / "rows.parquet")["n"].tolist() == [str(2**70), "1"]


COLUMNS: dict[str, list[Any]] = {
    "digits": ["12", "007"],
    "long": [1234567890123456789, 1],
    "huge": [2**70, -1],
    "floats": [1.5, float("inf")],
    "large and fraction": [2**53 + 1, 1.5],
    "JSON text": ['{"a": 1}', "[1]"],
    "lists": [[1], {"a": None}],
    "list and text": [["1"], '["1"]'],
    "number and text": [1, "1"],
    "flag and text": [True, "true"],
    "flag and number": [True, 1],
    "null text": ["null", None],
    "number and null text": [-1, "null"],
    "number and formula": [2, "=1+1"],
    "list and empty": [[], ""],
    "text and nothing": ["", None],
}


@pytest.mark.parametrize("infer", [True, False])
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_what_is_read_is_what_was_written(suffix: str, infer: bool, tmp_path: Path) -> None:
    rows = [{f"={name}": cells[number] for name, cells in COLUMNS.items()} for number in range(2)]
    kinds = write_rows(tmp_path / f"rows{suffix}", rows)
    read = [cells for _, cells in read_rows(tmp_path / f"rows{suffix}", infer_types=infer, kinds=kinds)]
    assert read == rows
    assert [list(map(type, row.values())) for row in read if isinstance(row, dict)] == [
        list(map(type, row.values())) for row in rows
    ]


def test_recorded_texts_of_a_list_are_parsed_for_a_field_of_lists(tmp_path: Path) -> None:
    class Lists(BaseModel):
        value: list[str]

    class Either(BaseModel):
        value: str | list[str]

    write_rows(tmp_path / "rows.parquet", [{"value": '["a"]'}])
    assert load_rows(tmp_path / "rows.parquet", Lists) == [Lists(value=["a"])]
    assert load_rows(tmp_path / "rows.parquet", Either) == [Either(value='["a"]')]


def test_a_file_is_replaced_only_when_all_rows_are_written(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", '{"a": 1}\n')
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_rows(path, [{"a": 2}, {"a": object()}])
    assert path.read_text() == '{"a": 1}\n'
    with pytest.raises(DataError, match="There is no folder for"):
        write_rows(tmp_path / "new" / "rows.jsonl", [])


def test_a_text_where_a_list_may_stand_needs_no_json(tmp_path: Path) -> None:
    class Either(BaseModel):
        value: str | list[str]

    rows = [Either(value="a [b"), Either(value=["a", "b"])]
    for suffix in SUFFIXES:
        write_rows(tmp_path / f"rows{suffix}", dumped(rows))
        assert load_rows(tmp_path / f"rows{suffix}", Either) == rows


def test_hash_depends_on_content_and_order() -> None:
    one, two = ITEMS
    assert dataset_hash([one, two]) == dataset_hash([one.model_dump(mode="json"), two.model_dump(mode="json")])
    assert dataset_hash([one, two]) != dataset_hash([two, one])
    assert dataset_hash([one]) != dataset_hash([one.model_copy(update={"answer": "Eire"})])


def test_hash_is_stable() -> None:
    expected = "27f921424da495acafa332632e2ba72d18a938c2eee3c443560845ea9ffb2083"
    assert dataset_hash([{"b": "é", "a": 1}]) == expected


def test_only_inputs_are_visible_in_examples() -> None:
    (example,) = to_examples([ITEMS[0]], inputs=("question",))
    assert example.inputs().toDict() == {"question": "Where is Cork?"}
    assert example.answer == "Ireland"
    assert dataset_hash(to_examples(ITEMS)) == dataset_hash(ITEMS)


@pytest.mark.parametrize("row", [{"q": "Why?"}, dspy.Example(q="Why?")])
def test_missing_input_is_an_error(row: Any) -> None:
    with pytest.raises(DataError, match="row 1 has no input 'question'; its fields are q"):
        to_examples([row])


def test_empty_file_has_no_columns(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [])
    assert load_rows(tmp_path / "rows.jsonl", Item) == []
    with pytest.raises(DataError, match="no rows to write"):
        write_rows(tmp_path / "rows.csv", [])


def dumped(rows: Sequence[BaseModel]) -> list[dict[str, Any]]:
    return [row.model_dump(mode="json") for row in rows]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def failure(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_rows(path, Item)
    return str(caught.value)


def test_spread_alternates_between_categories() -> None:
    examples = [dspy.Example(kind=kind, number=number) for number, kind in enumerate("aaabbc")]
    assert [example.number for example in interleave(examples, "kind")] == [0, 3, 5, 1, 4, 2]
    assert interleave(examples, "hue") == examples
    assert interleave([], "kind") == []


def test_a_part_of_the_examples_is_spread_over_all_of_them():
    examples = [dspy.Example(number=number) for number in range(10)]
    assert [example.number for example in spread(examples, 4)] == [0, 2, 5, 7]
    assert [example.number for example in spread(examples, 9)] == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert spread(examples, 10) == spread(examples, 99) == spread(examples, None) == examples
    assert spread([], 3) == []


class Basket(dspy.Signature):
    """Read a receipt."""

    receipt: str = dspy.InputField()
    tags: list[str] = dspy.InputField()
    sources: list[Source] = dspy.OutputField()
    main: Source | None = dspy.OutputField()


BASKETS = [
    {"receipt": '["this", "is", "text"]', "tags": ["a", "b, c"], "sources": [{"name": "x", "page": 1}], "main": None},
    {"receipt": "{}", "tags": [], "sources": [], "main": {"name": "y", "page": None}},
]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_lists_and_models_of_examples_survive_a_round_trip_without_a_schema(tmp_path: Path, suffix: str) -> None:
    write_rows(tmp_path / f"train{suffix}", BASKETS)
    first, second = read_examples(tmp_path, "train", Basket)
    assert (first.receipt, first.tags, first.sources) == (
        BASKETS[0]["receipt"],
        ["a", "b, c"],
        [Source(name="x", page=1)],
    )
    assert (second.tags, second.sources, second.main) == ([], [], Source(name="y"))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_columns_of_lists_and_objects_are_inferred(tmp_path: Path, suffix: str) -> None:
    rows = [{**row, "note": "[draft" if number else "[1]"} for number, row in enumerate(BASKETS)]
    write_rows(tmp_path / f"rows{suffix}", rows)
    read = [cells for _, cells in read_rows(tmp_path / f"rows{suffix}", infer_types=True)]
    assert [(row["tags"], row["sources"], row["main"], row["note"]) for row in read if isinstance(row, dict)] == [
        (row["tags"], row["sources"], row["main"], row["note"]) for row in rows
    ]


def test_a_cell_that_should_hold_a_list_is_named_by_row_and_column(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", 'receipt,tags\none,"[""a""]"\ntwo,"a, b"\nthree,"{""a"": 1}"\n')
    with pytest.raises(DataError) as caught:
        read_examples(tmp_path, "train", Basket)
    _, first, second = str(caught.value).splitlines()
    assert first.strip().startswith("train.csv, row 3: tags: not JSON (expected value at column 1)")
    assert second.strip() == "train.csv, row 4: tags: Input should be a valid list"
