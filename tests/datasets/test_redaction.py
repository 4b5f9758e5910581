"""Which texts are redacted, and which are not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneturn.datasets.redaction import Redaction


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("Write to ada.l+desk@example.co.uk, please.", "Write to [email], please."),
        ("Call +49 30 901820 tomorrow", "Call [phone] tomorrow"),
        ("or 030 90182000.", "or [phone]."),
        ("Take it from DE89 3704 0044 0532 0130 00.", "Take it from [iban]."),
        ("My card is 4111 1111 1111 1111", "My card is [card]"),
        ("card 4111 1111 1111 1111 12/27, cvv 123", "card [card] 12/27, cvv 123"),
        ("4111-1111-1111-1111 123", "[card] 123"),
        ("2 cups, 2 4111\u00a01111\u00a01111\u00a01111", "2 cups, 2 [card]"),
        ("Amex 3782 822463 10005", "Amex [card]"),
        ("from de89 3704 0044 0532 0130 00 please", "from [iban] please"),
        ("DE89\u00a03704\u00a00044\u00a00532\u00a00130\u00a000", "[iban]"),
        ("BE68 5390 0754 7034 IS MINE", "[iban] IS MINE"),
        ("BE68-5390-0754-7034 12 times", "[iban] 12 times"),
        ("Call (555) 123-4567", "Call [phone]"),
        ("or 555-123-4567.", "or [phone]."),
        ("or +1 555.123.4567", "or [phone]"),
        ("or (030) 901820", "or [phone]"),
        ("or 06.12.34.56.78", "or [phone]"),
        ("or +49\u00a030\u00a0901820", "or [phone]"),
        ("The key is sk-proj-abc123def456ghi789jkl", "The key is [secret]"),
        ("Authorization: Bearer abcdef0123456789abcdef01", "Authorization: [secret]"),
        ("postgres://app:a1b2c3d4@db.test/shop", "postgres://[secret]@db.test/shop"),
        ("My password: hunter22", "My password: [secret]"),
        ("I am customer K-4711.", "I am customer [customer]."),
    ],
)
def test_text_is_redacted_by_its_rule(text: str, redacted: str):
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
        "From 05-11-2026 to 01 02 2027, or 05.11.2026, or 05/11/2026",
        "the 12 months, 30 days and 18 cups of 2026",
        "part 0815-4711",
        "My password: swordfish",
        "the sum of 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31",
    ],
)
def test_other_text_is_unchanged(text: str):
    assert Redaction().apply(text) == text


@given(st.text())
def test_redaction_is_idempotent(text: str):
    once = Redaction().apply(text)
    assert Redaction().apply(once) == once


def test_adjacent_numbers_are_redacted_separately():
    rules = Redaction()
    assert rules.apply("BE68 5390 0754 7034 BE68 5390 0754 7034") == "[iban] [iban]"
    assert rules.apply("4111 1111 1111 1111 5555 5555 5555 4444") == "[card] [card]"
    assert rules.counts == {"iban": 2, "card": 2}


def test_empty_match_redacts_nothing():
    assert Redaction({"number": r"\d*"}).apply("3 cups") == "[number] cups"


@pytest.mark.parametrize("text", ["a" * 100_000, "0" * 100_000, "eyJ" * 30_000])
def test_long_text_is_unchanged(text: str):
    assert Redaction().apply(text) == text


def test_a_value_like_a_key_is_redacted_under_a_secret_name():
    rules = Redaction()
    call = {"name": "login", "args": {"api_key": "a1b2c3d4e5f6g7", "password": "two words", "order": "a1b2c3d4e5f6g7"}}
    redacted = rules.apply(call)["args"]
    assert redacted == {"api_key": "[secret]", "password": "two words", "order": "a1b2c3d4e5f6g7"}
    assert rules.counts == {"secret": 1}
