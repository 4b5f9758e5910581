"""What is taken out of what users wrote, and what is left."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneturn.examples.redaction import Redaction


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("Write to ada.l+desk@example.co.uk, please.", "Write to [email], please."),
        ("Call +49 30 901820 tomorrow", "Call [phone] tomorrow"),
        ("or 030 90182000.", "or [phone]."),
        ("Take it from DE89 3704 0044 0532 0130 00.", "Take it from [iban]."),
        ("My card is 4111 1111 1111 1111", "My card is [card]"),
        ("The key is sk-proj-abc123def456ghi789jkl", "The key is [secret]"),
        ("Authorization: Bearer abcdef0123456789abcdef01", "Authorization: [secret]"),
        ("I am customer K-4711.", "I am customer [customer]."),
    ],
)
def test_by_rule(text: str, redacted: str):
    rules = Redaction({"customer": r"K-\d+"})
    assert rules.apply({"question": [text]}) == {"question": [redacted]}
    assert sum(rules.counts.values()) == 1


@pytest.mark.parametrize(
    "text",
    [
        "Where is order M-1049?",
        "Does it cost €1,234.50 or 1 234.50?",
        "From 2026-11-23 to 2027-01-05, at 10:30",
        "My card is 4111 1111 1111 1112",  # its check digit is wrong
        "GB00 WEST 1234 5698 7654 32",
        "the 12 months, 30 days and 18 cups of 2026",
        "part 0815-4711",
    ],
)
def test_what_is_none_of_it_stays(text: str):
    assert Redaction().apply(text) == text


@given(st.text())
def test_again_changes_nothing(text: str):
    once = Redaction().apply(text)
    assert Redaction().apply(once) == once
