"""Callables that ``dspy.Tool`` doesn't describe, as tools."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import dspy
import pydantic
import pytest

import oneturn
from oneturn.core.steps import ToolCall
from oneturn.tools.functions import argument_docs
from oneturn.tools.registry import run_tool, toolset


class Tree(pydantic.BaseModel):
    name: str
    kids: list[Tree] = []


def organize(tree: Tree) -> str:
    """Summarize a tree."""
    return ",".join([tree.name, *(kid.name for kid in tree.kids)])


def find(query: str, **filters: Any) -> str:
    """Find."""
    return f"{query} {filters}"


def add(first: int, *rest: int) -> int:
    """Add."""
    return first + sum(rest)


async def look(q: str) -> str:
    """Look it up."""
    await asyncio.sleep(0)
    return f"async {q}"


def restart(instance: str, self: int = 3) -> str:
    """Restart an instance."""
    return f"{instance} {self}"


class Fetch:
    def __call__(self, id: int) -> str:
        """Fetch an object."""
        return f"got {id}"


CASES: list[tuple[Any, str, dict[str, Any], str]] = [
    (organize, "organize", {"tree": {"name": "a", "kids": [{"name": "b"}]}}, "a,b"),
    (oneturn.tool(organize), "organize", {"tree": {"name": "a"}}, "a"),
    (find, "find", {"query": "q", "filters": {"year": 1}}, "q {'year': 1}"),
    (find, "find", {"query": "q", "year": 1}, "q {'year': 1}"),
    (oneturn.tool(find, timeout=5), "find", {"query": "q", "filters": {"year": 1}}, "q {'year': 1}"),
    (add, "add", {"first": 1, "rest": [2, 3]}, "6"),
    (add, "add", {"first": 1, "more": 2}, "Error: add has no argument 'more'; it takes first, rest"),
    (look, "look", {"q": "x"}, "async x"),
    (oneturn.tool(look, timeout=5), "look", {"q": "x"}, "async x"),
    (restart, "restart", {"instance": "db", "self": 4}, "db 4"),
    (Fetch(), "Fetch", {"id": 4}, "got 4"),
    (functools.partial(add, 1), "add", {"rest": [2]}, "3"),
]


@pytest.mark.parametrize(("function", "name", "args", "output"), CASES)
def test_it_is_called_as_described(function: Any, name: str, args: dict[str, Any], output: str):
    assert run_tool(toolset([function]), ToolCall("1", name, args)).output == output


def test_the_args_section_describes_the_arguments():
    text, args = argument_docs(
        "Give back.\n\nAsk first.\n\nArgs:\n    order: the number,\n        as M-1.\n    why: a word.\n"
    )
    assert text == "Give back.\n\nAsk first."
    assert args == {"order": "the number, as M-1.", "why": "a word."}


def test_an_async_tool_with_a_schema_of_its_own_keeps_what_may_be_left_out():
    async def list_issues(**kwargs: Any) -> str:
        return str(kwargs)

    args = {"owner": {"type": "string"}, "since": {"type": "string"}}
    marks = {"owner": "The owner. (Required)", "since": "No description provided."}  # as dspy.Tool.from_mcp_tool has
    tool = dspy.Tool(list_issues, "list_issues", "List issues.", args, {"owner": str, "since": str}, marks)
    program = oneturn.ReAct("question -> answer", tools=[tool])
    step = program.steps_schema.json_schema(["list_issues"])["properties"]["tool_call"]["properties"]["args"]
    assert step["required"] == ["owner"]
