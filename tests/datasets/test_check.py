"""Problems of the examples are reported with file, line and fix."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

import oneturn
from oneturn.cli.tables import show_data_report
from oneturn.core.findings import Finding, Severity
from oneturn.datasets import check_data
from oneturn.datasets.check import DataReport
from oneturn.errors import ConfigError, DataError
from tests.datasets.agents import agent_with, row, write

CLEAN = {
    "train": [row("a", "Where is Cork?"), row("b", "Why is the sky blue?", category="hard")],
    "dev": [row("c", "Who wrote Ulysses?"), row("d", "How deep is the sea?", category="hard")],
    "test": [row("e", "When does the shop open?"), row("f", "What does a filter cost?", category="hard")],
}


def check(root: Path, **splits: Any) -> DataReport:
    return check_data(agent_with(root, **{**CLEAN, **splits}), progress=False)


def only(report: DataReport) -> Finding:
    assert len(report.findings) == 1, report.findings
    return report.findings[0]


def test_clean_examples_pass(tmp_path: Path):
    report = check(tmp_path)
    assert (report.findings, report.passed(strict=True)) == ((), True)
    assert report.to_dict()["balance"] == {
        "category": {split: dict.fromkeys(("train", "dev", "test"), 1) for split in ("easy", "hard")}
    }


@pytest.mark.parametrize(
    ("change", "field", "message", "fix"),
    [
        ({"category": "odd"}, "category", "'odd' is not one of ['easy', 'hard'].", "Use one of easy, hard."),
        ({"question": ""}, "question", "'' should be non-empty.", "See schema.json."),
        ({"answr": "x"}, "answr", "'answr' isn't in the schema.", "Rename it to 'answer'."),
        ({"zzz": 1}, "zzz", "'zzz' isn't in the schema.", "Remove it, or add it to the schema."),
        ({"category": None}, "category", "'category' is missing.", "Add 'category'."),
        ({"answer": 7}, "answer", "7 is not of type 'string'.", "Change it to a string."),
    ],
)
def test_value_outside_the_schema_is_reported(
    tmp_path: Path, change: dict[str, Any], field: str, message: str, fix: str
):
    changed = {name: value for name, value in {**CLEAN["dev"][0], **change}.items() if value is not None}
    report = check(tmp_path, dev=[CLEAN["dev"][1], changed])
    found = next(finding for finding in report.findings if finding.check == "schema")
    assert (found.file, found.place, found.field) == ("dev.jsonl", "line 2", field)
    assert (found.message, found.fix) == (message, fix)
    assert not report.passed()


def test_all_bad_and_unreadable_rows_are_reported(tmp_path: Path):
    agent = agent_with(tmp_path, **CLEAN)
    path = agent.examples_folder / "train.jsonl"
    path.write_text('{broken\n[]\n{"id": 3}\n' + json.dumps(row("a", "Where?")) + "\n")
    places = [finding.place for finding in check_data(agent, progress=False).findings if finding.severity == "error"]
    assert sorted(set(places)) == ["line 1", "line 2", "line 3"]


def test_rows_are_checked_against_the_signature_without_a_schema(tmp_path: Path):
    rows = [{"id": "a", "answer": ["x"]}]
    found = check_data(agent_with(tmp_path, schema=None, train=rows), progress=False).findings
    messages = {(finding.check, finding.field, finding.message) for finding in found}
    assert ("signature", "question", "input 'question' is missing.") in messages
    assert ("signature", "answer", "Input should be a valid string.") in messages


def test_errors_of_the_agent_s_loader_are_reported(tmp_path: Path):
    schema = {"type": "object"}
    report = check(tmp_path, schema=schema, dev=[{**row("c", "Who wrote Ulysses?"), "category": 3}])
    found = only(report)
    assert (found.check, found.file, found.place) == ("loader", "dev.jsonl", "line 1")
    assert found.message == "category: Input should be a valid string."


def test_duplicate_id_is_reported(tmp_path: Path):
    found = only(check(tmp_path, test=[row("e", "When does the shop open?"), row("a", "Is it dear?", category="hard")]))
    assert (found.check, found.file, found.place, found.value) == ("ids", "test.jsonl", "line 2", "a")


@pytest.mark.parametrize("split", ["train", "dev"])
def test_question_of_test_in_another_split_is_a_leak(tmp_path: Path, split: str):
    rows = [*CLEAN[split], row("leak", "  when does the SHOP open ")]
    found = only(check(tmp_path, **{split: rows}))
    assert (found.severity, found.check, found.file, found.place) == ("error", "leak", f"{split}.jsonl", "line 3")
    assert found.message == "leak has the same question as e (test)."
    assert found.fix == f"Remove it from {split}."


@pytest.mark.parametrize(
    ("kept", "copied", "answer", "severity", "kind"),
    [
        ("test", "train", "yes", "error", "near-leak"),
        ("test", "dev", "yes", "error", "near-leak"),
        ("test", "train", "no", "warning", "near-leak"),
        ("dev", "train", "yes", "warning", "near-leak"),
        ("train", "train", "yes", "note", "near-duplicate"),
    ],
)
def test_rephrased_question_is_reported(tmp_path: Path, kept: str, copied: str, answer: str, severity: str, kind: str):
    near = row("near", f"So {CLEAN[kept][1]['question'].lower()}", answer)
    found = only(check(tmp_path, **{copied: [*CLEAN[copied], near]}))
    assert (found.severity.value, found.check, found.place) == (severity, kind, "line 3")
    assert CLEAN[kept][1]["id"] in found.message


def test_two_questions_about_one_passage_are_no_leak(tmp_path: Path):
    passage = "The machines are wide and stand on a table, or on the floor, wherever there is room for them. " * 3
    rows = [
        {"id": ident, "passage": passage, "question": question, "answer": "yes", "category": "easy"}
        for ident, question in [("a", "Are they wide?"), ("b", "May it be the floor?"), ("c", "So, are they wide?")]
    ]
    agent = agent_with(tmp_path, schema={"type": "object"}, train=rows[:1], dev=rows[1:2], test=rows[2:])
    agent = dataclasses.replace(agent, build=lambda: oneturn.ReAct("passage, question -> answer", tools=[]))
    (found,) = check_data(agent, progress=False).findings
    assert (found.check, found.message[:39]) == ("near-leak", "a has nearly the same question as c (te")


def test_each_near_duplicate_is_reported_once(tmp_path: Path):
    names = [f"{chr(97 + i % 26) * 3}{chr(97 + i // 26) * 3}" for i in range(60)]
    rows = [row(name, f"What is the plan of the customer called {name}?") for name in names]
    report = check(tmp_path, train=[*CLEAN["train"], *rows])
    found = [finding for finding in report.findings if finding.check == "near-duplicate"]
    assert len(found) == len({finding.place for finding in found}) == 59


def test_one_question_with_two_answers_is_an_error(tmp_path: Path):
    found = only(check(tmp_path, train=[*CLEAN["train"], row("z", "Where is Cork?", "no")]))
    assert (found.severity, found.check) == (Severity.error, "duplicate")
    assert "a different answer" in found.message


def test_one_question_twice_in_a_split_is_a_warning(tmp_path: Path):
    report = check(tmp_path, train=[*CLEAN["train"], row("z", "Where is Cork?")])
    assert only(report).severity is Severity.warning
    assert (report.passed(), report.passed(strict=True)) == (True, False)


def test_label_missing_in_train_is_reported(tmp_path: Path):
    found = only(check(tmp_path, train=[CLEAN["train"][0]]))
    assert (found.check, found.value, found.message) == (
        "balance",
        "hard",
        "category 'hard' occurs in dev, test but not in train.",
    )


WORDS = ["cup", "box", "tap", "lid", "mug", "pan", "jar", "urn", "vat", "keg", "bin", "tub", "pot", "cot", "bed"]


def test_different_label_distributions_are_reported(tmp_path: Path):
    train = [row(f"t{word}", f"{word} {word[::-1]}?", category="easy") for word in WORDS]
    dev = [row(f"d{word}", f"{word} {word}{word}?", category="hard") for word in WORDS]
    report = check(tmp_path, train=[*train, CLEAN["train"][1]], dev=dev)
    (found,) = (finding for finding in report.findings if finding.check == "balance")
    assert found.message.startswith("the splits differ in category (chi-squared test, p = ")


def results(path: Path, **scores: float) -> Path:
    path.write_text("".join(json.dumps({"id": ident, "score": score}) + "\n" for ident, score in scores.items()))
    return path


def test_examples_that_do_not_discriminate_are_reported(tmp_path: Path):
    files = [results(tmp_path / "1.jsonl", a=0, b=1, c=1, d=0.2), results(tmp_path / "2.jsonl", a=0.3, b=1, c=0, d=0.9)]
    found = check_data(agent_with(tmp_path, **CLEAN), results=files, progress=False).findings
    assert [(finding.check, finding.severity.value, finding.message) for finding in found] == [
        ("never-right", "note", "no evaluation scores a as correct (2 evaluations, best score 0.30)."),
        ("always-right", "note", "every evaluation scores b as correct (2 evaluations)."),
    ]


def test_test_examples_are_only_counted(tmp_path: Path):
    found = only(
        check_data(agent_with(tmp_path, **CLEAN), results=[results(tmp_path / "1.jsonl", e=0, f=1)], progress=False)
    )
    assert found.message == "of 2 scored test examples, 1 are never correct and 1 always."
    assert (found.file, found.place) == ("", "")


def test_results_without_ids_are_matched_by_question(tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_text("question,score\nWhere is Cork?,0\n")
    found = only(check_data(agent_with(tmp_path, **CLEAN), results=[path], progress=False))
    assert found.message == "no evaluation scores a as correct (1 evaluation, best score 0.00)."


def test_results_without_scores_are_an_error(tmp_path: Path):
    agent = agent_with(tmp_path, **CLEAN)
    with pytest.raises(DataError, match=r"train\.jsonl, line 1: has no score; pass a file that oneturn evaluate"):
        check_data(agent, results=[agent.examples_folder / "train.jsonl"], progress=False)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda folder: [path.unlink() for path in folder.iterdir()], "has no examples: put train.jsonl"),
        (lambda folder: (folder / "dev.csv").write_text("id\n"), r"has dev\.jsonl and dev\.csv: keep one"),
        (lambda folder: (folder / "schema.json").write_text("{"), r"schema\.json isn't JSON: "),
        (lambda folder: (folder / "schema.json").write_text("[]"), "must contain a JSON object, not list"),
        (
            lambda folder: (folder / "schema.json").write_text('{"type": 3}'),
            r"schema\.json isn't a valid JSON schema: ",
        ),
        (lambda folder: (folder / "schema.json").write_text('{"$ref": "#/x"}'), "has an unresolvable reference: .*/x"),
    ],
)
def test_invalid_folder_is_an_error_with_the_reason(tmp_path: Path, spoil: Any, reason: str):
    agent = agent_with(tmp_path, **CLEAN)
    spoil(agent.examples_folder)
    with pytest.raises(DataError, match=reason):
        check_data(agent, progress=False)


def test_csv_values_are_read_by_the_schema(tmp_path: Path):
    agent = agent_with(tmp_path, schema={"properties": {"right": {"type": "boolean"}}}, test=CLEAN["test"])
    (agent.examples_folder / "train.csv").write_text("id,question,right\na,Where?,true\nb,Why?,perhaps\n")
    found = [finding for finding in check_data(agent, progress=False).findings if finding.check == "schema"]
    assert [(finding.file, finding.place, finding.value) for finding in found] == [("train.csv", "row 3", "perhaps")]


NULLABLE = {"type": ["string", "null"]}


def test_handwritten_schema_works(tmp_path: Path):
    schema = {
        "$defs": {"Kind": {"type": "string", "enum": ["easy", "hard"]}},
        "properties": {"id": True, "answer": NULLABLE, "category": {"anyOf": [{"$ref": "#/$defs/Kind"}, NULLABLE]}},
        "required": ["question", "category"],
    }
    report = check(tmp_path, schema=schema, dev=[*CLEAN["dev"], {"id": "z", "answer": 7}])
    found = [(finding.message, finding.fix) for finding in report.findings if finding.check == "schema"]
    assert found == [
        ("7 is not of type 'string', 'null'.", "Change it to a string or null."),
        ("'question', 'category' is missing.", "Add 'question', 'category'."),
    ]
    assert [balance.field for balance in report.balances] == ["category"]


def test_nullable_text_of_a_csv_stays_text(tmp_path: Path):
    agent = agent_with(tmp_path, schema={"properties": {"answer": NULLABLE}}, dev=CLEAN["dev"], test=CLEAN["test"])
    (agent.examples_folder / "train.csv").write_text("id,question,answer\na,How many?,12\n")
    assert not [f for f in check_data(agent, progress=False).findings if f.check in ("schema", "signature")]


def test_byte_order_mark_is_ignored(tmp_path: Path):
    agent = agent_with(tmp_path, **CLEAN)
    path = agent.examples_folder / "train.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert check_data(agent, progress=False).passed(strict=True)


def test_empty_and_missing_splits_are_reported(tmp_path: Path):
    agent = agent_with(tmp_path, train=CLEAN["train"], dev=[])
    found = [(f.severity.value, f.file, f.message) for f in check_data(agent, progress=False).findings]
    assert found == [
        ("warning", "dev.jsonl", "the file has no rows."),
        ("note", "", "there is no test.jsonl, test.csv or test.parquet."),
    ]


def test_numbers_are_valid_ids(tmp_path: Path):
    rows = [{**CLEAN["dev"][0], "id": 1}, {**CLEAN["dev"][1], "id": 1}]
    found = [finding for finding in check(tmp_path, schema=None, dev=rows).findings if finding.check == "ids"]
    assert [finding.message for finding in found] == ["id 1 is already used in dev.jsonl, line 1."]


def test_unexpected_loader_error_is_reported(tmp_path: Path):
    def loader(split: str) -> Any:
        raise KeyError("qestion")

    agent = dataclasses.replace(agent_with(tmp_path, **CLEAN), examples=loader)
    found = check_data(agent, progress=False).findings
    assert [(f.check, f.file) for f in found] == [("loader", f"{split}.jsonl") for split in ("train", "dev", "test")]
    assert found[0].message == "the agent's loader fails: KeyError: 'qestion'"


def test_one_rare_label_is_not_an_imbalance(tmp_path: Path):
    def rows(split: str, labels: Sequence[str]) -> list[dict[str, Any]]:
        return [row(f"{split}{i}", f"{split} {i} {split[::-1]}?", category=label) for i, label in enumerate(labels)]

    common = ["easy", "hard"]
    train, dev = rows("train", [*common * 300, "rare"]), rows("dev", [*common * 5, "rare"])
    report = check(tmp_path, schema=None, train=train, dev=dev, test=rows("test", common * 5))
    assert not [finding for finding in report.findings if finding.check == "balance"]


def test_results_of_other_examples_are_reported(tmp_path: Path):
    path = results(tmp_path / "1.jsonl", zzz=1)
    found = only(check_data(agent_with(tmp_path, **CLEAN), results=[path], progress=False))
    assert (found.severity.value, found.message) == ("warning", f"{path} has no scores for these examples.")


def test_report_is_valid_json_for_any_examples(tmp_path: Path):
    agent = agent_with(tmp_path, **CLEAN)
    (agent.examples_folder / "train.jsonl").write_text('{"id": "a", "question": NaN, "category": "easy"}\n')
    json.dumps(check_data(agent, progress=False).to_dict(), allow_nan=False)


def test_verdict_matches_the_exit_code(tmp_path: Path):
    report = check(tmp_path, train=[*CLEAN["train"], row("z", "Where is Cork?")])
    console = Console(record=True, width=100, file=io.StringIO())
    show_data_report(report, console, strict=True)
    assert "failed: 0 errors, 1 warning" in console.export_text()
    assert (report.to_dict()["passed"], report.to_dict(strict=True)["passed"]) == (True, False)


NAMES = st.sampled_from(["id", "question", "answer", "x"])
VALUES = st.recursive(st.none() | st.text() | st.integers(), st.lists, max_leaves=3)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(rows=st.lists(st.dictionaries(NAMES, VALUES), max_size=4))
def test_check_completes_for_any_rows(tmp_path: Path, rows: list[dict[str, Any]]):
    agent = agent_with(tmp_path)
    write(agent.examples_folder, "train", rows)
    json.dumps(check_data(agent, progress=False).to_dict())


def test_the_folder_is_configured(tmp_path: Path):
    agent = agent_with(tmp_path, config={"data": {"examples": "elsewhere"}}, **CLEAN)
    with pytest.raises(DataError, match="elsewhere has no examples"):
        check_data(agent, progress=False)


def test_invalid_pattern_is_an_error():
    with pytest.raises(ConfigError, match=r"data\.redact: customer: '\(' isn't a regular expression"):
        oneturn.AgentConfig.read({"data": {"redact": {"customer": "("}}})
