"""A person reviews candidates: accept, edit, reject."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import oneturn
from oneturn.core.row_files import json_line
from oneturn.datasets.candidate_review import CandidateReview
from oneturn.datasets.review import read_candidates
from oneturn.errors import DataError
from tests.datasets.agents import agent_with, rows_of

FIRST = {"id": "trace-1", "question": "Fees?", "answer": "4 euros", "provenance": {"trace_id": "tr-1", "said": "right"}}
SECOND = {"id": "trace-2", "question": "Limits?", "provenance": {"trace_id": "tr-2", "said": "wrong", "note": "no"}}


@pytest.fixture
def agent(tmp_path: Path, traced: None) -> oneturn.Agent:
    train = [{"id": "t1", "question": "One?", "answer": "1", "category": "easy"}]
    agent = agent_with(tmp_path, train=train)
    (agent.examples_folder / "candidates.jsonl").write_text(json_line(FIRST))
    (agent.examples_folder / "to_label.jsonl").write_text(json_line(SECOND))
    return agent


def test_candidates_with_a_label_come_first(agent: oneturn.Agent):
    first, second = CandidateReview(agent).candidates()
    assert (first["id"], first["labelled"]) == ("trace-1", True)
    assert first["values"] == {"question": "Fees?", "answer": "4 euros"}
    assert (second["id"], second["provenance"]["note"], second["labelled"]) == ("trace-2", "no", False)


def test_an_edited_candidate_lands_in_the_split(agent: oneturn.Agent):
    review = CandidateReview(agent)
    review.accept("trace-2", {"question": "Limits?", "answer": "five", "category": "hard"})
    assert rows_of(agent.examples_folder, "train")[-1] == {
        "id": "trace-2", "question": "Limits?", "answer": "five", "category": "hard",
    }  # fmt: skip
    assert [row["id"] for row in review.candidates()] == ["trace-1"]
    assert not (agent.examples_folder / "to_label.jsonl").exists()
    [origin] = read_candidates(agent.examples_folder, "accepted.jsonl")
    assert (origin["split"], origin["provenance"]["trace_id"]) == ("train", "tr-2")


@pytest.mark.parametrize(
    "values", [{"question": "", "answer": "x", "category": "easy"}, {"question": "Fees?"}, {"x": 1}]
)
def test_an_invalid_edit_changes_nothing(agent: oneturn.Agent, values: dict[str, Any]):
    before = {path.name: path.read_bytes() for path in agent.examples_folder.iterdir()}
    with pytest.raises(DataError):
        CandidateReview(agent).accept("trace-1", values)
    assert {path.name: path.read_bytes() for path in agent.examples_folder.iterdir()} == before


def test_a_rejected_candidate_is_gone_and_its_trace_recorded(agent: oneturn.Agent):
    review = CandidateReview(agent)
    review.reject("trace-1")
    assert [row["id"] for row in review.candidates()] == ["trace-2"]
    [origin] = read_candidates(agent.examples_folder, "rejected.jsonl")
    assert origin["provenance"]["trace_id"] == "tr-1"
    with pytest.raises(DataError, match="reviewed already"):
        review.reject("trace-1")


def test_test_is_never_added_to(agent: oneturn.Agent):
    with pytest.raises(DataError, match="can't be added to test"):
        CandidateReview(agent, "test").accept("trace-1", {"question": "Fees?", "answer": "4", "category": "easy"})


def test_a_form_knows_inputs_outputs_and_the_schema(agent: oneturn.Agent):
    description = CandidateReview(agent).describe()
    assert (description["inputs"], description["outputs"]) == (["question"], ["answer"])
    assert description["schema"]["properties"]["category"] == {"enum": ["easy", "hard"]}


def test_an_answer_whose_trace_is_gone_is_unknown(agent: oneturn.Agent):
    assert CandidateReview(agent).answer("trace-1") is None
    with pytest.raises(DataError, match="trace-9"):
        CandidateReview(agent).answer("trace-9")


def test_reviewers_at_the_same_time_lose_nothing(agent: oneturn.Agent):
    rows = [{"id": f"c{number}", "question": f"Question {number}?", "answer": "yes"} for number in range(30)]
    (agent.examples_folder / "candidates.jsonl").write_text("".join(map(json_line, rows)))
    review = CandidateReview(agent)

    def decide(number: int) -> None:
        if number % 3:
            review.accept(f"c{number}", {"question": f"Question {number}?", "answer": "yes", "category": "easy"})
        else:
            review.reject(f"c{number}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(decide, range(30)))
    ids = [row["id"] for row in rows_of(agent.examples_folder, "train")]
    assert sorted(ids) == sorted(["t1", *(f"c{number}" for number in range(30) if number % 3)])
    assert len(read_candidates(agent.examples_folder, "accepted.jsonl")) == 20
    assert len(read_candidates(agent.examples_folder, "rejected.jsonl")) == 10
    assert [row["id"] for row in review.candidates()] == ["trace-2"]


def test_an_interrupted_move_is_finished_when_it_is_repeated(agent: oneturn.Agent):
    values = {"question": "Fees?", "answer": "4 euros", "category": "easy"}
    before = (agent.examples_folder / "candidates.jsonl").read_text()
    review = CandidateReview(agent)
    review.accept("trace-1", values)
    (agent.examples_folder / "candidates.jsonl").write_text(before)  # the process ended before it was replaced
    review.accept("trace-1", values)
    assert [row["id"] for row in rows_of(agent.examples_folder, "train")] == ["t1", "trace-1"]
    assert [row["id"] for row in review.candidates()] == ["trace-2"]


@pytest.mark.parametrize(
    ("row", "problem"),
    [({"question": "Why?"}, "a candidate without an id"), (SECOND, "a second candidate 'trace-2'")],
)
def test_a_candidate_without_an_id_of_its_own_is_reported(agent: oneturn.Agent, row: dict[str, Any], problem: str):
    with (agent.examples_folder / "to_label.jsonl").open("a") as file:
        file.write(json_line(row))
    review = CandidateReview(agent)
    for act in (review.candidates, lambda: review.answer("trace-1"), lambda: review.reject("trace-1")):
        with pytest.raises(DataError, match=f"{problem}.*: give each candidate a unique id"):
            act()


@pytest.mark.parametrize("provenance", ["by hand", None, {"by": 3, "at": 5, "trace_id": 7, "expected": "x"}])
def test_a_provenance_that_a_person_wrote_does_no_harm(agent: oneturn.Agent, provenance: Any):
    (agent.examples_folder / "candidates.jsonl").write_text(json_line({**FIRST, "provenance": provenance}))
    review = CandidateReview(agent)
    assert review.candidates()[0]["provenance"] == {}
    assert review.answer("trace-1") is None
    review.reject("trace-1")
