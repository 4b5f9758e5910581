"""What the docs say of retrieval is that of the shipped examples."""

from __future__ import annotations

from pathlib import Path

from benchmarks.report import between_marks
from benchmarks.retrieval import least_scores, recall, speed

DOCS = Path(__file__).resolve().parents[2] / "docs"
QUALITY = DOCS / "quality.md"
TRIED = DOCS / "what-was-tried.md"


def test_recall_in_the_docs_is_up_to_date():
    page = QUALITY.read_text(encoding="utf-8")
    assert "<!-- recall -->" in page
    command = "python -m benchmarks.retrieval --embeddings --recall docs/quality.md"
    assert page == between_marks(QUALITY, recall(), "recall"), f"run: {command}"


def test_effect_of_a_least_score_in_the_docs_is_up_to_date():
    page = TRIED.read_text(encoding="utf-8")
    command = "python -m benchmarks.retrieval --embeddings --least-scores docs/what-was-tried.md"
    assert page == between_marks(TRIED, least_scores(), "least scores"), f"run: {command}"


def test_speed_is_measured_with_and_without_a_stemmer():
    *_, words, stemmed = speed([]).splitlines()
    recalls = {line.split(" | ")[0].strip("| "): line.split(" | ")[1] for line in (words, stemmed)}
    assert list(recalls) == ["words (BM25)", "words, stemmed"]
    assert recalls["words (BM25)"] != recalls["words, stemmed"]
