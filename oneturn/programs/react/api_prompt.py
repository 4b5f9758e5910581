"""The step adapter for an LM behind an API, which no local grammar holds to a schema."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import dspy

from oneturn.programs.react.prompt import Message, StepAdapter, with_request
from oneturn.programs.react.schema import StepSchema
from oneturn.tools.registry import FINISH

LAST_STEP = f"This is the last step. Call {FINISH} now, with what the results say."


class APIStepAdapter(StepAdapter):
    """Formats and parses steps for an LM behind an API, which gets the same schema, or none, in all requests.

    The prompt tells all that the schema would, so that the schema can be left out where it is refused, and asks for
    ``finish`` where the local grammar would allow nothing else. Roles alternate, as some LMs' templates require.

    Args:
        steps: the schema of a step.
        allowed: the names that the step may call.
        schema: whether to send the schema; otherwise JSON mode is requested if the LM has one.
        json_mode: whether to request JSON mode if no schema is sent.
    """

    full_description = True

    def __init__(self, steps: StepSchema, allowed: Iterable[str], schema: bool, json_mode: bool = True):
        super().__init__(steps, allowed)
        self.tool_calling = "schema" if schema else "text"
        self.json_mode = json_mode

    def response_format(self) -> dict[str, Any]:
        """Return the response format: the schema of all steps, or JSON mode; empty if there is none."""
        if self.tool_calling == "schema":
            return self.steps.response_format(may_finish=FINISH in self.allowed)
        return {"type": "json_object"} if self.json_mode else {}

    def request_options(self, lm: dspy.BaseLM) -> dict[str, Any]:
        """Return the response format, if there is one."""
        return {"response_format": self.response_format()} if self.response_format() else {}

    def format(
        self, signature: type[dspy.Signature], demos: list[dict[str, Any]], inputs: dict[str, Any]
    ) -> list[Message]:
        """Return the complete chat with alternating roles."""
        messages = super().format(signature, demos, inputs)
        if self.allowed == {FINISH} and len(self.steps.names) > 1:
            messages = with_last_step(messages)
        return alternate(messages)


def with_last_step(messages: list[Message]) -> list[Message]:
    """Ask for ``finish`` at the end of the last message, unless that does so already."""
    return messages if f"Call {FINISH}" in str(messages[-1]["content"]) else with_request(messages, LAST_STEP)


def alternate(messages: Iterable[Message]) -> list[Message]:
    """Join each run of messages of the same role, of texts or content parts, into one message."""
    joined: list[Message] = []
    for message in messages:
        last = joined[-1] if joined else {}
        if message["role"] != last.get("role") or message["role"] == "tool":
            joined.append(message)
        elif isinstance(last["content"], str) and isinstance(message["content"], str):
            joined[-1] = {**last, "content": f"{last['content']}\n\n{message['content']}"}
        else:
            joined[-1] = {**last, "content": [*_parts(last["content"]), *_parts(message["content"])]}
    return joined


def _parts(content: Any) -> list[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
