"""Near-duplicates: all of them, and no others."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oneturn.examples.near import _trigrams, near_pairs, same_text

WORDS = st.sampled_from(
    ["how", "much", "what", "costs", "the", "filter", "filters", "of", "plan", "12", "13", "a", "cup", "cups"]
)
TEXTS = st.lists(st.lists(WORDS, max_size=7).map(" ".join), max_size=9)


@settings(deadline=None)
@given(texts=TEXTS, threshold=st.sampled_from([0.3, 0.5, 0.7, 0.9, 1.0]))
def test_every_near_pair_is_found_and_no_other(texts: list[str], threshold: float):
    sets = [_trigrams(text) for text in texts]
    expected = {}
    for second, others in enumerate(sets):
        for first in range(second):
            union = sets[first] | others
            similarity = len(sets[first] & others) / len(union) if union else 0.0
            if similarity >= threshold - 1e-9:
                expected[first, second] = pytest.approx(similarity)
    assert {(first, second): similarity for first, second, similarity in near_pairs(texts, threshold)} == expected


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
def test_what_counts_as_near(one: str, other: str, near: bool):
    assert bool(near_pairs([one, other])) == near


def test_thousands_of_questions_from_one_mould_are_compared_with_care_for_the_memory():
    names = [f"{chr(97 + i % 26)}{chr(97 + i // 26 % 26)}{chr(97 + i // 676)}" * 4 for i in range(2_500)]
    texts = [f"What plan does {name} have?" for name in names] + ["What plan does aaaaaaaaaaaa have, then?"]
    assert len(set(texts)) == 2_501
    firsts = Counter(first for first, second, _ in near_pairs(texts, 0.8) if second == 2_500)
    assert firsts == {0: 1}


@pytest.mark.parametrize("text", ["What is it?", "  what is\nit ?", "WHAT IS IT", "What is it…".replace("…", "...")])
def test_the_same_text_in_other_clothes(text: str):
    assert same_text(text) == "what is it"


def test_signs_within_a_text_count():
    assert same_text("What is 3-2?") != same_text("What is 3+2?")
