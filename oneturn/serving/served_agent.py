"""The agent that a server serves."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import dspy
from mlflow.pyfunc import ResponsesAgent

from oneturn.programs import program_tools
from oneturn.programs.fingerprint import digest, program_fingerprint
from oneturn.responses import ResponsesAdapter
from oneturn.responses.tool_items import ToolItemForm

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServedAgent:
    """An agent and how it is served.

    Attributes:
        agent: the agent.
        name: its name, the ``model`` of its responses.
        version: its version, if it has one.
        tool_items: the form of its own tool calls; ``None`` for that of each dialect.
        example_questions: questions that it can answer, for people who try it.
    """

    agent: ResponsesAgent
    name: str = "agent"
    version: str | None = None
    tool_items: ToolItemForm | None = None
    example_questions: tuple[str, ...] = ()

    @cached_property
    def fingerprint(self) -> str | None:
        """Equal for servers of the same program with the same prompts, settings and LM; ``None`` if that is unknown."""
        program = getattr(self.agent, "program", None)
        module = getattr(program, "module", program)  # unwrap a ModuleProgram
        if not isinstance(module, dspy.Module):
            return None
        try:
            return digest(program_fingerprint(module))
        except Exception:  # settings may be objects of any class
            _logger.warning("The program %s has no fingerprint.", type(module).__name__, exc_info=True)
            return None

    @cached_property
    def tools(self) -> Mapping[str, Any]:
        """The agent's own tools by name, if they are known."""
        return program_tools(self.agent.program) if isinstance(self.agent, ResponsesAdapter) else {}
