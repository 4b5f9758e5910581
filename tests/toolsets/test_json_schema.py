"""A tool described by a JSON schema, with what servers write into schemas."""

from __future__ import annotations

from typing import Any

from oneturn.config.tools import ToolEntry
from oneturn.core.steps import ToolCall
from oneturn.tools.registry import run_tool, toolset
from oneturn.toolsets.json_schema import schema_tool

SCHEMA = {
    "type": "object",
    "properties": {
        "any": True,
        "who": {"allOf": [{"$ref": "#/$defs/Id"}, {"properties": {"email": {"type": "string"}}}]},
    },
    "required": ["any"],
    "$defs": {"Id": {"type": "object", "properties": {"id": {"type": "string"}}}},
}


def test_references_and_all_of_reach_the_lm_and_any_value_the_server():
    sent: list[Any] = []
    tools = toolset([schema_tool(sent.append, "find", "Find.", SCHEMA, ToolEntry())])
    (tool,) = tools.values()
    assert tool.args["any"] == {}
    (who, null) = tool.args["who"]["anyOf"]
    assert who["properties"] == {"id": {"type": "string"}, "email": {"type": "string"}}
    assert null == {"type": "null"}
    run_tool(tools, ToolCall("1", "find", {"any": [3], "who": None}))
    assert sent == [{"any": [3]}]
