"""The page about conformance says what the rules say."""

from __future__ import annotations

import re

from oneturn.conformance import RULES, check_stream
from scripts.conformance_docs import PAGE, page


def test_the_tables_are_the_rules_own():
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m scripts.conformance_docs"


def test_the_examples_name_rules_that_are_there():
    words = PAGE.read_text(encoding="utf-8").partition("<!-- rules: begin -->")[0]
    named = set(re.findall(r"`([a-z]+(?:-[a-z]+)+)`", words))
    assert named
    assert named <= set(RULES)


def test_the_example_for_tests_holds():
    delta = {"type": "response.output_text.delta", "item_id": "m", "delta": "4"}
    assert "item-not-done" in {violation.rule for violation in check_stream([delta])}
