"""The interface of a program has the tools that it was given, and none that DSPy makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dspy
import pytest

from oneturn.programs.state.interface import interface_of


def search(query: str) -> str:
    """Search the shelves."""
    return query


class OwnReAct(dspy.ReAct):
    """A subclass of DSPy's agent."""


class Holder(dspy.Module):
    """A module with tools of its own."""

    def __init__(self, tools: Any):
        super().__init__()
        self.signature = dspy.Signature("question -> answer")
        self.tools = tools


@pytest.mark.parametrize("agent", [dspy.ReAct, dspy.ReActV2, OwnReAct])
def test_the_tool_that_ends_the_loop_is_not_part_of_it(agent: Callable[..., dspy.Module]):
    assert list(interface_of(agent("question -> answer", tools=[search])).tools) == ["search"]


@pytest.mark.parametrize("tools", [[dspy.Tool(search)], (dspy.Tool(search),), {"search": dspy.Tool(search)}])
def test_tools_are_found_in_any_collection(tools: Any):
    assert list(interface_of(Holder(tools)).tools) == ["search"]


def test_a_tool_named_as_another_module_s_ending_is_kept():
    assert list(interface_of(Holder([dspy.Tool(search, name="finish")])).tools) == ["finish"]
