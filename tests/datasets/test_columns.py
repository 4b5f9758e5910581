"""Rows whose columns or recorded calls differ from all others."""

from __future__ import annotations

from typing import Any

import dspy

from oneturn.core.findings import Severity
from oneturn.core.splits import Row
from oneturn.datasets.columns import odd_columns, unknown_calls


def rows(*changes: dict[str, Any], number: int = 10) -> list[Row]:
    usual = [{"id": str(n), "question": f"{n}?", "answer": str(n), "topic": "sums"} for n in range(number)]
    return [Row("train", "train.jsonl", f"line {n}", values) for n, values in enumerate([*usual, *changes], 1)]


def test_a_column_that_one_row_lacks_is_a_warning_with_the_name_that_it_has_instead():
    found = list(odd_columns(rows({"id": "a", "qestion": "1?", "answer": "1", "topic": "sums"})))
    assert [(each.severity, each.field, each.place, each.fix) for each in found] == [
        (Severity.warning, "question", "line 11", "Rename 'qestion'.")
    ]
    (missing,) = odd_columns(rows({"id": "a", "question": "1?", "topic": "sums"}))
    assert missing.message == "it has no 'answer', which 10 of 11 rows have."


def test_columns_that_a_part_of_the_rows_has_are_no_finding():
    refusals = [{"id": f"r{n}", "question": f"r{n}?", "topic": "other"} for n in range(3)]
    assert list(odd_columns(rows(*refusals))) == []
    assert list(odd_columns(rows({"question": "?"}, number=2))) == []


def search(query: str) -> str:
    """Search."""
    return query


def test_expected_calls_are_compared_with_the_tools():
    tools = {"search": dspy.Tool(search)}

    def mistakes(*calls: Any) -> list[str]:
        return [each.message for each in unknown_calls(rows({"expected_tool_calls": list(calls)}, number=0), tools)]

    assert mistakes({"name": "search", "arguments": {"query": "x"}}, {"name": "search"}) == []
    assert mistakes({"name": "search", "arguments": {"q": "x"}}) == ["search takes query, not q."]
    assert mistakes({"name": "find", "arguments": {}}) == ["there is no tool 'find'; the tools are search."]
    assert mistakes({"name": "search", "arguments": "x"}) == ["the arguments of search are 'x', not an object."]
    assert mistakes("search") == ["a call has no name."]
