"""openai-agents."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from agents import (
    Agent,
    HostedMCPTool,
    ModelSettings,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from cells import Answer, Left, clock, run_cells, turn
from openai import AsyncOpenAI

set_tracing_disabled(True)


class Conversation:
    """The history is ``to_input_list()`` of the last result; an approval resumes its state."""

    def __init__(self, cell: dict[str, Any]):
        self._cell = cell
        self._history: list[Any] = []
        self._loop = asyncio.new_event_loop()  # one for all turns: the client's connections belong to it

    def ask(self, question: str) -> dict[str, Any]:
        """Ask; a plain question is a string."""
        if self._cell["plain"]:
            return self._loop.run_until_complete(self._run(question))
        return self._loop.run_until_complete(self._run([*self._history, {"role": "user", "content": question}]))

    def decide(self, approve: bool) -> dict[str, Any]:
        """Approve or reject the interruption, and resume the run."""
        state = self._result.to_state()
        (interruption,) = self._result.interruptions
        state.approve(interruption) if approve else state.reject(interruption)
        return self._loop.run_until_complete(self._run(state))

    async def _run(self, asked: Any) -> dict[str, Any]:
        client = AsyncOpenAI(base_url=self._cell["url"], api_key="none", max_retries=0, timeout=self._cell["timeout"])
        extra = {"custom_inputs": self._cell["custom_inputs"]} if self._cell["custom_inputs"] else None
        tools: list[Any] = [HostedMCPTool(tool_config={"type": "mcp", "server_label": "oneturn"})]
        if self._cell["client_tool"]:
            tools.append(function_tool(clock))
        agent = Agent(
            name="desk",
            model=OpenAIResponsesModel("agent", client),
            model_settings=ModelSettings(extra_body=extra),
            tools=tools,
            output_type=Answer if self._cell["structured"] else None,
        )
        if not self._cell["stream"]:
            return self._read(await Runner.run(agent, asked, max_turns=4))
        result = Runner.run_streamed(agent, asked, max_turns=4)
        deltas = 0
        async for event in result.stream_events():
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
                deltas += 1
                if self._cell["leave"]:
                    result.cancel()
                    raise Left
        return self._read(result, deltas)

    def _read(self, result: Any, deltas: int = 0) -> dict[str, Any]:
        self._result = result
        self._history = result.to_input_list()
        raw = [item.raw_item for item in result.new_items]
        items = [item if isinstance(item, dict) else item.model_dump() for item in raw]
        contents = [part for item in items if item["type"] == "message" for part in item["content"]]
        output = result.final_output
        made = [item for item in items if item["type"] == "function_call"]
        return turn(
            output if isinstance(output, str) else "",
            deltas=deltas,
            parsed=output.model_dump() if isinstance(output, Answer) else None,
            tools=[[item["name"], item["output"]] for item in items if item["type"] == "mcp_call"],
            to_run=[item["name"] for item in made],
            ran=[[item["name"], json.loads(item["arguments"])] for item in made],
            citations=[note["url"] for part in contents for note in part["annotations"]],
            approvals=[[item.name, json.loads(item.arguments)] for item in result.interruptions],
        )


if __name__ == "__main__":
    run_cells(Conversation)
