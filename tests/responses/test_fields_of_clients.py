"""Fields that some clients send in a form of their own."""

from __future__ import annotations

import pytest

from oneturn.errors import RequestError
from oneturn.responses.request_fields import read_fields
from oneturn.responses.tool_fields import AGENT_TOOLS

SCHEMA = {"type": "object", "properties": {"answer": {"type": "string"}}}


def test_the_nested_schema_of_databricks_provider_is_read():
    nested = {"type": "json_schema", "json_schema": {"name": "response", "schema": SCHEMA, "strict": True}}
    _, options = read_fields({"input": "Hello", "text": {"format": nested}})
    flat = {"type": "json_schema", "name": "response", "schema": SCHEMA, "strict": True}
    _, expected = read_fields({"input": "Hello", "text": {"format": flat}})
    assert options.text_format == expected.text_format
    assert options.text_format is not None
    assert options.text_format.json_schema == SCHEMA


@pytest.mark.parametrize("unknown", ["text.format.json_schema", "colour"])
def test_an_unknown_field_of_the_format_is_refused(unknown: str):
    name = unknown.rsplit(".", 1)[-1]
    with pytest.raises(RequestError, match=name) as refused:
        read_fields({"input": "Hello", "text": {"format": {"type": "text", name: "red"}}})
    assert refused.value.param == f"text.format.{name}"


def test_the_agents_own_tools_may_be_named():
    assert read_fields({"input": "Hello", "tools": [AGENT_TOOLS]}) == read_fields({"input": "Hello"})


@pytest.mark.parametrize("more", [{"server_label": "other"}, {"server_url": "https://example.org"}])
def test_another_servers_tools_are_refused(more: dict[str, str]):
    with pytest.raises(RequestError, match="the agent has its own tools") as refused:
        read_fields({"input": "Hello", "tools": [{**AGENT_TOOLS, **more}]})
    assert refused.value.param == "tools"
