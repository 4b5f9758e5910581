"""LangChain's ``ChatOpenAI`` and, with the argument ``databricks``, ``ChatDatabricks``."""

from __future__ import annotations

import sys
from typing import Any

from cells import Answer, run_cells, turn
from langchain_core.messages import HumanMessage
from langchain_messages import decision, read_message, stream_message


class Conversation:
    """The history is the list of messages."""

    def __init__(self, cell: dict[str, Any]):
        self._cell = cell
        self._model = _chat_databricks(cell) if sys.argv[1:] == ["databricks"] else _chat_openai(cell)
        self._messages: list[Any] = []

    def ask(self, question: str) -> dict[str, Any]:
        """Ask through ``invoke`` or ``stream``."""
        self._messages.append(HumanMessage(question))
        return self._respond()

    def decide(self, approve: bool) -> dict[str, Any]:
        """Answer the approval request."""
        self._messages.append(decision(self._messages[-1], approve))
        return self._respond()

    def _respond(self) -> dict[str, Any]:
        if self._cell["structured"]:
            model = self._model.with_structured_output(Answer, method="json_schema")
            parsed = (
                list(model.stream(self._messages))[-1] if self._cell["stream"] else model.invoke(self._messages)
            )
            return turn(parsed=parsed.model_dump())
        deltas = 0
        if self._cell["stream"]:
            message, deltas = stream_message(self._model, self._messages, self._cell["leave"])
        else:
            message = self._model.invoke(self._messages)
        self._messages.append(message)
        return read_message(message, deltas)


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

    return ChatDatabricks(
        model="desk",
        workspace_client=WorkspaceClient(host=cell["url"], token="none"),
        use_responses_api=True,
        max_retries=0,
        timeout=cell["timeout"],
        extra_params={"custom_inputs": cell["custom_inputs"]} if cell["custom_inputs"] else None,
    )


if __name__ == "__main__":
    run_cells(Conversation)
