"""LangChain's ``ChatOpenAI`` and, with the argument ``databricks``, ``ChatDatabricks``."""

from __future__ import annotations

import json
import sys
from typing import Any

from cells import CLOCK, Answer, clock, run_cells, turn
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_messages import decision, read_databricks_message, read_message, stream_message

DATABRICKS = sys.argv[1:] == ["databricks"]


class Conversation:
    """The history is the list of messages."""

    def __init__(self, cell: dict[str, Any]):
        self._cell = cell
        self._model = _chat_databricks(cell) if DATABRICKS else _chat_openai(cell)
        if cell["client_tool"]:
            self._model = self._model.bind_tools([{"type": "function", "function": CLOCK}])
        self._messages: list[Any] = []

    def ask(self, question: str) -> dict[str, Any]:
        """Ask through ``invoke`` or ``stream``."""
        self._messages.append(HumanMessage(question))
        shown = self._respond()
        if not self._cell["client_tool"]:
            return shown
        made = self._messages[-1].tool_calls
        self._messages += [ToolMessage(clock(**call["args"]), tool_call_id=call["id"]) for call in made]
        return self._respond() | {"ran": [[call["name"], call["args"]] for call in made]}

    def decide(self, approve: bool) -> dict[str, Any]:
        """Answer the approval request."""
        self._messages.append(decision(self._messages[-1], approve))
        return self._respond()

    def _respond(self) -> dict[str, Any]:
        model, options = self._model, {}
        if DATABRICKS and self._cell["custom_inputs"]:
            options["custom_inputs"] = self._cell["custom_inputs"]
        if self._cell["structured"] and not DATABRICKS:
            return self._parse(model.with_structured_output(Answer, method="json_schema"))
        results: list[Any] = []
        deltas = 0
        if self._cell["stream"]:
            message, results, deltas = stream_message(model, self._messages, self._cell["leave"], **options)
        else:
            message = model.invoke(self._messages, **options)
        self._messages.append(message)
        shown = read_databricks_message(message, results, deltas) if DATABRICKS else read_message(message, deltas)
        if self._cell["structured"]:
            shown["parsed"] = json.loads(shown["text"])
        return shown

    def _parse(self, model: Any) -> dict[str, Any]:
        parsed = list(model.stream(self._messages))[-1] if self._cell["stream"] else model.invoke(self._messages)
        return turn(parsed=parsed.model_dump())


def _chat_openai(cell: dict[str, Any]) -> Any:
    from langchain_openai import ChatOpenAI

    extra = {"custom_inputs": cell["custom_inputs"]} if cell["custom_inputs"] else None
    return ChatOpenAI(
        model="agent",
        base_url=cell["url"],
        api_key="none",
        use_responses_api=True,
        max_retries=0,
        timeout=cell["timeout"],
        extra_body=extra,
    )


def _chat_databricks(cell: dict[str, Any]) -> Any:
    from databricks.sdk import WorkspaceClient
    from databricks_langchain import ChatDatabricks

    # Its with_structured_output passes response_format, which the Responses API doesn't have.
    schema = Answer.model_json_schema() | {"additionalProperties": False}
    text_format = {"type": "json_schema", "name": "answer", "schema": schema, "strict": True}
    return ChatDatabricks(
        model="desk",
        workspace_client=WorkspaceClient(host=cell["url"], token="none"),
        use_responses_api=True,
        max_retries=0,
        timeout=cell["timeout"],
        extra_params={"text": {"format": text_format}} if cell["structured"] else None,
    )


if __name__ == "__main__":
    run_cells(Conversation)
