"""Columns that few rows have or lack, and recorded tool calls that no tool of the agent takes."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dspy

from oneturn.core.findings import Finding, Severity
from oneturn.core.splits import Row

EXPECTED_CALLS = "expected_tool_calls"
_FEW = 0.05  # of the rows, or one row
_LEAST = 5  # rows, below which no column is usual


def odd_columns(rows: Sequence[Row]) -> Iterator[Finding]:
    """Yield a warning for each column that a row lacks and nearly all others have.

    A metric may read such a column; a row may also have it under a misspelled name.
    """
    if len(rows) < _LEAST:
        return
    few = max(1.0, _FEW * len(rows))
    counts = Counter(name for row in rows for name in row.values)
    usual = [name for name, count in counts.items() if len(rows) - count <= few]
    for row in rows:
        for name in (each for each in usual if each not in row.values):
            rare = [each for each in row.values if counts[each] <= few]
            near = difflib.get_close_matches(name, rare, n=1)
            message = f"it has no {name!r}, which {counts[name]} of {len(rows)} rows have."
            fix = f"Rename {near[0]!r}." if near else f"Add {name!r}, if your metric or your recipe reads it."
            yield Finding(Severity.warning, "columns", message, fix, row.file, row.place, name)


def unknown_calls(rows: Sequence[Row], tools: Mapping[str, dspy.Tool]) -> Iterator[Finding]:
    """Yield an error for each expected tool call that names no tool, or arguments that its tool doesn't take."""
    for row in rows:
        calls = row.values.get(EXPECTED_CALLS)
        for call in calls if isinstance(calls, list) else ():
            if message := _mistake(call, tools):
                fix = 'Write {"name": …, "arguments": {…}} as the tool is declared.'
                yield Finding(Severity.error, "tool calls", message, fix, row.file, row.place, EXPECTED_CALLS, call)


def _mistake(call: Any, tools: Mapping[str, dspy.Tool]) -> str | None:
    if not isinstance(call, Mapping) or "name" not in call:
        return "a call has no name."
    name, arguments = call["name"], call.get("arguments", {})
    if name not in tools:
        return f"there is no tool {name!r}; the tools are {', '.join(tools) or 'none'}."
    if not isinstance(arguments, Mapping):
        return f"the arguments of {name} are {arguments!r:.60}, not an object."
    tool = tools[name]
    if not tool.has_kwargs and (unknown := [each for each in arguments if each not in tool.args]):
        return f"{name} takes {', '.join(tool.args) or 'no argument'}, not {', '.join(map(str, unknown))}."
    return None
