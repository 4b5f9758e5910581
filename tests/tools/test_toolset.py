"""Tools: what the LM reads of what they give, and of how they fail."""

from __future__ import annotations

from typing import Any

import dspy
import pydantic
import pytest
from mlflow.entities import Document

from oneturn.core.steps import ToolCall, ToolResult
from oneturn.errors import ProgramError
from oneturn.tools.registry import render_result, run_tool, toolset


class Order(pydantic.BaseModel):
    id: str
    items: int


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is", "as it is"),
        ("", "Nothing was found."),
        ([], "Nothing was found."),
        ((), "Nothing was found."),
        (None, "null"),
        (3, "3"),
        (["a", "ö"], '["a", "ö"]'),
        ({"a": 1}, '{"a": 1}'),
        (Order(id="M-1", items=2), '{"id": "M-1", "items": 2}'),
        ([Order(id="M-1", items=2)], '[{"id": "M-1", "items": 2}]'),
        (Document("Red.", id="red"), "[red] Red."),
        ([Document("Red.", id="red"), Document("Blue.", id="blue")], "[red] Red.\n[blue] Blue."),
        ([Document("Nameless.")], "Nameless."),
    ],
)
def test_a_value_is_read_as_text(value: Any, text: str):
    assert render_result(value) == text


def run(tool: Any, name: str | None = None, **args: Any) -> ToolResult:
    tools = toolset([tool])
    return run_tool(tools, ToolCall("call_1", name or next(iter(tools)), args))


def find(query: str) -> list[Document]:
    """Find."""
    return [Document("Red.", {"title": "R"}, id="red"), Document("Nameless.")]


def test_a_result_is_paired_with_its_call_and_keeps_the_documents_that_can_be_cited():
    result = run(find, query="x")
    assert (result.call_id, result.name, result.is_error) == ("call_1", "find", False)
    assert [document.id for document in result.documents] == ["red"]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("no such order"), "Error: no such order"),
        (ValueError(""), "Error: ValueError"),
        (ValueError("two\n   lines\tof it"), "Error: two lines of it"),
        (ValueError("x" * 500), "Error: " + "x" * 199 + "…"),
        (KeyError("M-1"), "Error: 'M-1'"),
    ],
)
def test_a_failure_is_one_short_line(error: Exception, told: str):
    def fails() -> str:
        """Fail."""
        raise error

    result = run(fails)
    assert (result.output, result.is_error, result.documents) == (told, True, ())


def test_a_tool_that_does_not_exist_is_told_which_do():
    result = run(find, "fnd", query="x")
    assert result.output == "Error: there is no tool 'fnd'; available tools: find, finish"
    assert result.is_error


def test_an_interruption_is_nobody_s_failure():
    def interrupted() -> str:
        """Wait."""
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(interrupted)


def test_names_that_clash_are_refused():
    with pytest.raises(ProgramError, match="Two tools are named 'find'"):
        toolset([find, dspy.Tool(find)])
    with pytest.raises(ProgramError, match="can't be named 'finish'"):
        toolset([dspy.Tool(find, name="finish")])
