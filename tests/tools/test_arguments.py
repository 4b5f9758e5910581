"""Arguments as LMs write them: what a tool is called with, what a person sees, and what the LM reads of others."""

from __future__ import annotations

import enum
from typing import Any

import pydantic
import pytest

import oneturn
from oneturn.core.steps import ToolCall
from oneturn.testing import ScriptedLM, call, finish
from oneturn.tools.arguments import convert_arguments
from oneturn.tools.registry import run_tool, toolset


class Colour(enum.Enum):
    RED = "crimson"
    BLUE = "navy"


class Order(pydantic.BaseModel):
    sku: str = pydantic.Field(alias="SKU")
    colours: list[Colour] = []


def count(n: int, deep: bool = False, order: Order | None = None, tags: list[str] | None = None) -> str:
    """Count."""
    return f"{n!r} {deep!r} {order!r} {tags!r}"


def paint(colour: Colour, *more: Colour) -> str:
    """Paint."""
    return f"{colour.name} {[each.name for each in more]}"


@pytest.mark.parametrize(
    ("function", "written", "converted"),
    [
        (count, {"n": "5", "deep": "true"}, {"n": 5, "deep": True}),
        (count, {"n": 5, "deep": "null"}, {"n": 5}),
        (count, {"n": 5, "deep": ""}, {"n": 5}),
        (count, {"n": 5, "order": "null"}, {"n": 5, "order": None}),
        (
            count,
            {"n": 5, "order": '{"SKU": 7, "colours": ["blue"]}'},
            {"n": 5, "order": {"SKU": "7", "colours": ["navy"]}},
        ),
        (count, {"n": 5, "tags": '["a"]'}, {"n": 5, "tags": ["a"]}),
        (paint, {"colour": "RED", "more": ["Colour.BLUE"]}, {"colour": "crimson", "more": ["navy"]}),
        (count, {"n": "many"}, {"n": "many"}),
    ],
)
def test_arguments_are_converted_as_outputs_are(function: Any, written: dict[str, Any], converted: dict[str, Any]):
    (tool,) = toolset([function]).values()
    assert convert_arguments(tool, written) == converted


XML = "<function=count>\n<parameter=n>\n5\n</parameter>\n<parameter=deep>\ntrue\n</parameter>\n</function>"


@pytest.mark.parametrize("written", [XML, call("count", n="5", deep="true")])
def test_the_run_calls_the_tool_with_converted_arguments_and_remembers_them(written: Any):
    program = oneturn.ReAct("question -> answer", tools=[count], tool_calling="text")
    program.set_lm(ScriptedLM(written, call("count", n=5, deep=True), finish(answer="?"), response_schema=False))
    trajectory = program(question="?").trajectory
    assert [turn.tool_call.args for turn in trajectory] == [{"n": 5, "deep": True}] * 2
    assert trajectory[0].observation == "5 True None None"
    assert trajectory[1].observation.startswith("Error: that call was made before")


def test_an_error_about_an_argument_names_it_and_no_library():
    result = run_tool(toolset([count]), ToolCall("1", "count", {"n": 1, "order": "four"}))
    assert result.output == "Error: invalid argument 'order': 'four' is not valid under any of the given schemas"

    def parse() -> str:
        """Parse."""
        return Order.model_validate({}).sku

    assert run_tool(toolset([parse]), ToolCall("1", "parse", {})).output == "Error: SKU: Field required"
