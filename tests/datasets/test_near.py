"""Finding near-duplicates."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oneturn.datasets import read_rows
from oneturn.datasets.duplicates import _trigrams, near_pairs, normalize_text

WORDS = st.sampled_from(
    ["how", "much", "what", "costs", "the", "filter", "filters", "of", "plan", "12", "13", "a", "cup", "cups"]
)
TEXTS = st.lists(st.lists(WORDS, max_size=7).map(" ".join), max_size=9)


@settings(deadline=None)
@given(texts=TEXTS, threshold=st.sampled_from([0.3, 0.5, 0.7, 0.9, 1.0]))
def test_exactly_the_near_pairs_are_returned(texts: list[str], threshold: float):
    assert found(texts, threshold) == compared_one_by_one(texts, threshold)


def test_the_pairs_of_the_shipped_questions_are_found():
    files = sorted((Path(__file__).resolve().parents[2] / "data" / "examples").glob("*.jsonl"))
    questions = [row["question"] for file in files for _, row in read_rows(file) if isinstance(row, dict)]
    counts = [len(found(questions, threshold)) for threshold in (0.2, 0.3, 0.5, 0.7)]
    assert counts == sorted(counts, reverse=True)
    assert counts[1] > 50
    assert counts[-1] == 0, "no two shipped questions are nearly the same"
    assert found(questions, 0.3) == compared_one_by_one(questions, 0.3)


def found(texts: list[str], threshold: float) -> dict[tuple[int, int], float]:
    return {(first, second): similarity for first, second, similarity in near_pairs(texts, threshold)}


def compared_one_by_one(texts: list[str], threshold: float) -> dict[tuple[int, int], Any]:
    sets = [_trigrams(text) for text in texts]
    expected = {}
    for second, others in enumerate(sets):
        for first in range(second):
            union = sets[first] | others
            similarity = len(sets[first] & others) / len(union) if union else 0.0
            if similarity >= threshold - 1e-9:
                expected[first, second] = pytest.approx(similarity)
    return expected


@pytest.mark.parametrize(
    ("one", "other", "near"),
    [
        ("What does a box of filters cost?", "What does a box of filters cost", True),
        ("What does a box of filters cost?", "what does one box of filters cost?", True),
        ("Is it open on Sunday?", "On Sunday, is it open?", True),
        ("What is the plan of order M-1043?", "What is the plan of order M-1073?", False),
        ("What does a box of filters cost?", "How long is the warranty?", False),
        ("", "", False),
    ],
)
def test_nearness_of_two_questions(one: str, other: str, near: bool):
    assert bool(near_pairs([one, other])) == near


def test_thousands_of_templated_questions_are_compared_in_little_memory():
    names = [f"{chr(97 + i % 26)}{chr(97 + i // 26 % 26)}{chr(97 + i // 676)}" * 4 for i in range(2_500)]
    texts = [f"What plan does {name} have?" for name in names] + ["What plan does aaaaaaaaaaaa have, then?"]
    assert len(set(texts)) == 2_501
    firsts = Counter(first for first, second, _ in near_pairs(texts, 0.8) if second == 2_500)
    assert firsts == {0: 1}


def test_pairs_of_thousands_of_templated_questions_are_limited():
    texts = [
        f"What is the plan of the customer called {chr(97 + i % 26) * 3}{chr(97 + i // 26) * 3}" for i in range(600)
    ]
    counts = Counter(second for _, second, _ in near_pairs(texts, most=2))
    assert len(near_pairs(texts)) > 100_000
    assert counts == {1: 1, **dict.fromkeys(range(2, 600), 2)}


def test_each_input_must_be_near():
    passage = "The machines are 38 cm wide and stand on a table, or on the floor, wherever there is room for them."
    questions = ["How wide are they?", "Where do they stand?", "Where do they stand, then?"]
    texts = [f"{passage}\n{question}" for question in questions]
    assert len(near_pairs(texts)) == 3
    pairs = near_pairs(texts, parts=[[passage] * 3, questions])
    assert [(first, second) for first, second, _ in pairs] == [(1, 2)]


@pytest.mark.parametrize("text", ["What is it?", "  what is\nit ?", "WHAT IS IT", "What is it…".replace("…", "...")])
def test_case_whitespace_and_end_punctuation_are_ignored(text: str):
    assert normalize_text(text) == "what is it"


def test_signs_within_a_text_matter():
    assert normalize_text("What is 3-2?") != normalize_text("What is 3+2?")
