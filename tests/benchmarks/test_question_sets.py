"""Third-party question sets are converted to the rows of the recipes benchmark."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchmarks import question_sets
from benchmarks.jsonl_agent import jsonl_agent
from oneturn.config import AgentConfig

SIZES = {"train": 2, "dev": 1, "test": 2}


def entries(*questions: str) -> list[dict[str, Any]]:
    """Return entries in the format of the package's sets."""
    return [{"question": f"{text}?\n", "answer": len(text), "metadata": {"source_index": 0}} for text in questions]


def test_rows_load_as_examples_in_the_requested_splits(tmp_path: Path):
    path = tmp_path / "set.jsonl"
    rows = question_sets.rows("letters", entries("a", "bb", "a", "ccc", "dd", "e", "f"), SIZES)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    agent = jsonl_agent(path, "question -> answer", [], "exact", AgentConfig())
    rows = {split: [(row.question, row.answer) for row in agent.examples(split)] for split in SIZES}
    assert rows == {
        "train": [("a?", "1"), ("bb?", "2")],
        "dev": [("ccc?", "3")],
        "test": [("dd?", "2"), ("e?", "1")],
    }
    assert agent.examples("test")[1].id == "letters-test-002"


def test_too_few_different_questions_are_an_error():
    with pytest.raises(SystemExit, match="letters has too few different questions for row 2 of test; request fewer"):
        list(question_sets.rows("letters", entries("a", "b", "b", "c", "d"), SIZES))


def test_missing_package_is_an_error_with_the_install_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, question_sets.PACKAGE, None)
    with pytest.raises(SystemExit, match=r"reasoning_gym isn't installed; .*: pip install reasoning-gym"):
        question_sets.entries("letters", 5, 0)


def test_unknown_set_is_an_error_that_lists_the_sets(monkeypatch: pytest.MonkeyPatch):
    factory = ModuleType("factory")
    factory.DATASETS = {"sums": None, "letters": None}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, question_sets.PACKAGE, ModuleType("package"))
    monkeypatch.setitem(sys.modules, f"{question_sets.PACKAGE}.factory", factory)
    with pytest.raises(SystemExit, match=r"has no set 'letter'\. It has: letters, sums"):
        question_sets.entries("letter", 5, 0)
