"""Schemas of arguments that others declare: what the LM gets of keywords that dialects don't have."""

from __future__ import annotations

from typing import Any

import dspy
import pytest

from oneturn import ReAct
from oneturn.core.client_tools import ClientTool
from oneturn.core.steps import ToolCall
from oneturn.tools.registry import run_tool, toolset
from oneturn.tools.schemas import plain_schema

TEXT = {"type": "string"}
BOTH = {"id": TEXT, "email": TEXT}
BESIDE = {"type": "object", "properties": BOTH, "anyOf": [{"required": ["id"]}, {"required": ["email"]}]}
ALL = {
    "description": "Who.",
    "allOf": [
        {"type": "object", "properties": {"id": TEXT}, "required": ["id"]},
        {"properties": {"email": {"type": "string", "format": "email"}}},
    ],
    "properties": {"email": {"description": "Mail."}},
    "required": ["email"],
}


@pytest.mark.parametrize(
    ("schema", "plain"),
    [
        (True, {}),
        ({"properties": {"a": True, "b": False}}, {"properties": {"a": {}, "b": {"not": {}}}}),
        ({"type": "array", "items": True}, {"type": "array", "items": {}}),
        ({"items": [TEXT, {"type": "integer"}]}, {"prefixItems": [TEXT, {"type": "integer"}]}),
        (
            BESIDE,
            {"anyOf": [{"type": "object", "properties": BOTH, "required": [each]} for each in ("id", "email")]},
        ),
        (
            ALL,
            {
                "description": "Who.",
                "type": "object",
                "properties": {"id": TEXT, "email": {"type": "string", "format": "email", "description": "Mail."}},
                "required": ["id", "email"],
            },
        ),
        ({"properties": None, "anyOf": None, "allOf": {}, "required": True, "type": "string"}, TEXT),
        ({"anyOf": [TEXT, {"type": "null"}], "default": None}, {"anyOf": [TEXT, {"type": "null"}], "default": None}),
    ],
)
def test_a_schema_is_plain(schema: Any, plain: dict[str, Any]):
    assert plain_schema(schema) == plain


def test_nested_alternatives_dont_grow_without_bound():
    schema: dict[str, Any] = TEXT
    for _ in range(16):
        schema = {"type": "object", "properties": {"a": schema}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}
    plain = plain_schema(schema)
    assert len(str(plain)) < 50_000
    assert plain["properties"].keys() == {"a"}


def tool_with(schema: Any) -> dspy.Tool:
    return dspy.Tool(lambda **values: str(values), "find", "Find.", {"filter": schema}, {}, {"filter": "(Required)"})


@pytest.mark.parametrize("schema", [BESIDE, ALL])
def test_every_property_reaches_the_lm(schema: Any):
    steps = ReAct("question -> answer", tools=[tool_with(schema)]).steps_schema
    texts = [str(steps.functions(narrow)) for narrow in (False, True)]
    texts += [str(steps.response_format()), steps.description(full=True)]
    assert all("id" in text and "email" in text for text in texts)
    narrow = steps.functions(narrow=True)[0]["function"]["parameters"]["properties"]["filter"]
    assert list(narrow["properties"]) == ["id", "email"]


def test_an_argument_of_any_type_can_be_given():
    tools = toolset([tool_with(True)])
    assert run_tool(tools, ToolCall("1", "find", {"filter": 3})).output == "{'filter': 3}"
    program = ReAct("question -> answer", tools=[tool_with(True)])
    parameters = {"type": "object", "properties": {"any": True}, "required": []}
    steps = program.steps_schema.with_client_tools({"own": ClientTool("own", "Own.", parameters)})
    assert [each["function"]["name"] for each in steps.functions(narrow=True)] == ["find", "own", "finish"]
    assert "any?: any" in steps.description(full=True)
