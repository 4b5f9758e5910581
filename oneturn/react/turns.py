"""The record of a run: turns, as the prompt shows them and as demos keep them."""

from __future__ import annotations

from typing import Any

import pydantic


class ToolCallArgs(pydantic.BaseModel):
    """One tool call as the LM writes it (the same two keys as ``dspy.ToolCalls.ToolCall``)."""

    name: str
    args: dict[str, Any]


class Turn(pydantic.BaseModel):
    """One finished step of a run: what was thought, what was called, what came back."""

    thought: str | None = None
    tool_call: ToolCallArgs | None = None
    observation: str
