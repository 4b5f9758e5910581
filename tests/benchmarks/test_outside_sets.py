"""Question sets from outside become the rows that the measurement of recipes takes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchmarks import outside_sets
from benchmarks.outside import outside_agent
from oneturn.config import AgentConfig

SIZES = {"train": 2, "dev": 1, "test": 2}


def entries(*questions: str) -> list[dict[str, Any]]:
    """In the form of the package's sets."""
    return [{"question": f"{text}?\n", "answer": len(text), "metadata": {"source_index": 0}} for text in questions]


def test_the_rows_are_an_agent_s_examples_in_the_splits_that_were_asked_for(tmp_path: Path):
    path = tmp_path / "set.jsonl"
    rows = outside_sets.rows("letters", entries("a", "bb", "a", "ccc", "dd", "e", "f"), SIZES)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    agent = outside_agent(path, "question -> answer", [], "exact", AgentConfig())
    found = {split: [(row.question, row.answer) for row in agent.examples(split)] for split in SIZES}
    assert found == {"train": [("a?", "1"), ("bb?", "2")], "dev": [("ccc?", "3")], "test": [("dd?", "2"), ("e?", "1")]}
    assert agent.examples("test")[1].id == "letters-test-002"


def test_too_few_different_questions_are_told():
    with pytest.raises(SystemExit, match="letters has too few different questions for 2 of test: ask for fewer"):
        list(outside_sets.rows("letters", entries("a", "b", "b", "c", "d"), SIZES))


def test_a_package_that_is_not_there_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, outside_sets.PACKAGE, None)
    with pytest.raises(SystemExit, match=r"There is no reasoning_gym, .*: pip install reasoning-gym"):
        outside_sets.entries("letters", 5, 0)


def test_a_set_that_is_not_there_is_answered_with_those_that_are(monkeypatch: pytest.MonkeyPatch):
    factory = ModuleType("factory")
    factory.DATASETS = {"sums": None, "letters": None}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, outside_sets.PACKAGE, ModuleType("package"))
    monkeypatch.setitem(sys.modules, f"{outside_sets.PACKAGE}.factory", factory)
    with pytest.raises(SystemExit, match=r"has no set 'letter'\. It has: letters, sums"):
        outside_sets.entries("letter", 5, 0)
