"""pydantic-ai."""

from __future__ import annotations

import asyncio
from typing import Any

from cells import Answer, Left, clock, run_cells, turn
from openai import AsyncOpenAI
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.messages import NativeToolCallPart, NativeToolReturnPart, TextPart, ToolCallPart
from pydantic_ai.models.openai import OpenAIResponsesModel, OpenAIResponsesModelSettings
from pydantic_ai.providers.openai import OpenAIProvider


class Conversation:
    """The history is ``all_messages()`` of the last result."""

    def __init__(self, cell: dict[str, Any]):
        self._cell = cell
        self._history: list[Any] = []

    def ask(self, question: str) -> dict[str, Any]:
        """Ask through ``run`` or ``run_stream``."""
        return asyncio.run(self._run(question))

    def decide(self, approve: bool) -> dict[str, Any]:
        """Fail: there is no way to answer."""
        raise NotImplementedError("pydantic-ai doesn't read mcp_approval_request items")

    async def _run(self, question: str) -> dict[str, Any]:
        client = AsyncOpenAI(base_url=self._cell["url"], api_key="none", max_retries=0, timeout=self._cell["timeout"])
        settings = OpenAIResponsesModelSettings(openai_include_raw_annotations=True)
        if self._cell["custom_inputs"]:
            settings["extra_body"] = {"custom_inputs": self._cell["custom_inputs"]}
        model = OpenAIResponsesModel("agent", provider=OpenAIProvider(openai_client=client), settings=settings)
        agent: Any = Agent(model, output_type=NativeOutput(Answer) if self._cell["structured"] else str)
        if self._cell["client_tool"]:
            agent.tool_plain(clock)
        if not self._cell["stream"]:
            result = await agent.run(question, message_history=self._history)
            return self._read(result, result.output)
        deltas = 0
        async with agent.run_stream(question, message_history=self._history) as result:
            if not self._cell["structured"]:
                async for _ in result.stream_text(delta=True, debounce_by=None):
                    deltas += 1
                    if self._cell["leave"]:
                        raise Left
            return self._read(result, await result.get_output(), deltas)

    def _read(self, result: Any, output: Any, deltas: int = 0) -> dict[str, Any]:
        parts = [part for message in result.new_messages() for part in message.parts]
        self._history = result.all_messages()
        results = {part.tool_call_id: part.content for part in parts if isinstance(part, NativeToolReturnPart)}
        calls = [part for part in parts if isinstance(part, NativeToolCallPart)]
        details = [part.provider_details or {} for part in parts if isinstance(part, TextPart)]
        return turn(
            output if isinstance(output, str) else "",
            deltas=deltas,
            parsed=output.model_dump() if isinstance(output, Answer) else None,
            tools=[[call.args_as_dict()["tool_name"], results[call.tool_call_id]["output"]] for call in calls],
            to_run=[part.tool_name for part in parts if type(part) is ToolCallPart],
            ran=[[part.tool_name, part.args_as_dict()] for part in parts if type(part) is ToolCallPart],
            citations=[note["url"] for detail in details for note in detail.get("annotations", [])],
        )


if __name__ == "__main__":
    run_cells(Conversation)
