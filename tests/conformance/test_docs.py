"""The pages on the checker match its rules."""

from __future__ import annotations

import re

from oneturn.conformance import RULES, check_stream
from scripts.conformance_docs import PAGE, page


def test_page_tables_match_the_rules():
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m scripts.conformance_docs"


def test_page_text_names_only_existing_rules():
    text = (PAGE.parent / "conformance.md").read_text(encoding="utf-8")
    names = set(re.findall(r"`([a-z]+(?:-[a-z]+)+)`", text))
    assert names
    assert names <= set(RULES)


def test_check_stream_example_reports_the_violation():
    delta = {"type": "response.output_text.delta", "item_id": "m", "delta": "4"}
    assert "item-not-done" in {violation.check for violation in check_stream([delta])}
