"""Callables that ``dspy.Tool`` doesn't describe, as tools."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Iterator
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


def rows(q: str) -> Iterator[str]:
    """List rows."""
    yield f"row {q}"
    yield "last"


async def stream_rows(q: str) -> AsyncIterator[str]:
    """List rows."""
    yield f"row {q}"


@functools.lru_cache
def cached(q: str, n: int = 1) -> str:
    """Look it up once."""
    return f"{q} {n}"


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
    (rows, "rows", {"q": "x"}, '["row x", "last"]'),
    (oneturn.tool(rows, timeout=5), "rows", {"q": "x"}, '["row x", "last"]'),
    (dspy.Tool(rows), "rows", {"q": "x"}, '["row x", "last"]'),
    (stream_rows, "stream_rows", {"q": "x"}, '["row x"]'),
    (oneturn.tool(stream_rows), "stream_rows", {"q": "x"}, '["row x"]'),
    (cached, "cached", {"q": "x"}, "x 1"),
    (oneturn.tool(cached), "cached", {"q": "x", "n": 2}, "x 2"),
    (dspy.Tool(cached), "cached", {"q": "x"}, "x 1"),
    (functools.partial(add, 1), "add", {"rest": [2]}, "3"),
]


@pytest.mark.parametrize(("function", "name", "args", "output"), CASES)
def test_it_is_called_as_described(function: Any, name: str, args: dict[str, Any], output: str):
    assert run_tool(toolset([function]), ToolCall("1", name, args)).output == output


@pytest.mark.parametrize("function", [cached, oneturn.tool(cached), dspy.Tool(cached), rows, stream_rows])
def test_it_is_described_by_its_own_parameters(function: Any):
    ((name, tool),) = toolset([function]).items()
    assert tool.args["q"] == {"type": "string"}
    assert list(tool.args) == (["q", "n"] if name == "cached" else ["q"])
    assert tool.desc == ("Look it up once." if name == "cached" else "List rows.")


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
