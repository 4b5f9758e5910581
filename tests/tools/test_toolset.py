"""Tools: what the LM reads of what they give, and of how they fail."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import dspy
import numpy as np
import pandas as pd
import pyarrow as pa
import pydantic
import pytest
from mlflow.entities import Document

from oneturn.core.steps import ToolCall, ToolResult
from oneturn.errors import ProgramError
from oneturn.tools.registry import render_result, run_tool, toolset

PIXEL = "data:image/png;base64,iVBORw0KGgo="
IMAGE = dspy.Image(PIXEL)


class Row(NamedTuple):
    order: str
    price: float


class SparkRow(tuple[Any, ...]):
    """As ``pyspark.sql.Row``."""

    __fields__ = ("order", "price")

    def asDict(self) -> dict[str, Any]:  # noqa: N802
        return dict(zip(self.__fields__, self, strict=True))


class Measured(pydantic.BaseModel):
    n: Any
    all: Any


class Screen(pydantic.BaseModel):
    title: str
    image: dspy.Image | None = None


@dataclasses.dataclass
class Page:
    image: dspy.Image


class Order(pydantic.BaseModel):
    id: str
    items: int


ROWS = '[{"order": "a", "day": "2026-01-02T00:00:00"}, {"order": null, "day": null}]'
SCREENS = '[{"title": "a", "image": "[image]"}, {"title": "b", "image": null}]'


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
        (pd.DataFrame({"order": ["a", None], "day": [pd.Timestamp("2026-01-02"), pd.NaT]}), ROWS),
        (pd.DataFrame({"n": [1]}, index=pd.Index(["a"], name="shop")), '[{"shop": "a", "n": 1}]'),
        (pd.DataFrame({"n": []}), "Nothing was found."),
        (pd.Series([1.5], index=["price"]), '{"price": 1.5}'),
        (pa.table({"n": [1]}), '[{"n": 1}]'),
        (Row("M-1", 2.5), '{"order": "M-1", "price": 2.5}'),
        ([SparkRow(["M-1", 2.5])], '[{"order": "M-1", "price": 2.5}]'),
        ({"rows": [Row("M-1", 2.5)], "sum": np.int64(3)}, '{"rows": [{"order": "M-1", "price": 2.5}], "sum": 3}'),
        (Measured(n=np.int64(3), all=np.array([1, 2])), '{"n": 3, "all": [1, 2]}'),
        (IMAGE, "[image]"),
        (["as it is", IMAGE], "as it is\n[image]"),
        ({"title": "a", "image": IMAGE}, '{"title": "a", "image": "[image]"}'),
        ([Screen(title="a", image=IMAGE), Screen(title="b")], SCREENS),
        (Page(IMAGE), '{"image": "[image]"}'),
    ],
)
def test_a_value_is_read_as_text(value: Any, text: str):
    assert render_result(value) == text


def run(tool: Any, name: str | None = None, **args: Any) -> ToolResult:
    tools = toolset([tool])
    return run_tool(tools, ToolCall("call_1", name or next(iter(tools)), args))


@pytest.mark.parametrize(
    "value", [IMAGE, [IMAGE], {"a": {"b": IMAGE}}, [[Screen(title="a", image=IMAGE)]], Page(IMAGE)]
)
def test_images_at_any_depth_are_media_of_the_result(value: Any):
    def shoot() -> Any:
        """Take a screenshot."""
        return value

    result = run(shoot)
    assert result.media == (IMAGE,)
    assert "base64" not in result.output


def test_a_result_that_can_not_be_rendered_is_a_failed_call():
    class Table:
        def to_pylist(self) -> Any:
            raise OSError("/private: gone")

    def query() -> Any:
        """Query."""
        return Table()

    assert run(query).output == "Error: the tool failed (OSError)"


def find(query: str) -> list[Document]:
    """Find."""
    return [Document("Red.", {"title": "R"}, id="red"), Document("Nameless.")]


def test_a_result_is_paired_with_its_call_and_keeps_the_documents_that_can_be_cited():
    result = run(find, query="x")
    assert (result.call_id, result.name, result.is_error) == ("call_1", "find", False)
    assert [document.id for document in result.documents] == ["red"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("no such order"), "Error: no such order"),
        (ValueError(""), "Error: ValueError"),
        (ValueError("two\n   lines\tof it"), "Error: two lines of it"),
        (ValueError("x" * 500), "Error: " + "x" * 199 + "…"),
        (KeyError("M-1"), "Error: 'M-1'"),
    ],
)
def test_a_failure_is_one_short_line(error: Exception, expected: str):
    def fails() -> str:
        """Fail."""
        raise error

    result = run(fails)
    assert (result.output, result.is_error, result.documents) == (expected, True, ())


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
