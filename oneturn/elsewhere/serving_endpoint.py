"""A serving endpoint of the workspace as a tool: an agent of the Responses protocol, or a chat model."""

from __future__ import annotations

from typing import Any

import dspy

from oneturn.agent_tools.endpoint import endpoint_tool
from oneturn.agent_tools.nested import nested
from oneturn.config.tools import ServingEndpointTool
from oneturn.elsewhere.foreign import foreign_tool
from oneturn.elsewhere.workspace import client_maker, told_as_tool_error
from oneturn.errors import ToolError
from oneturn.spend import Spend
from oneturn.tools.declared import tool
from oneturn.watching import listen

_QUESTION = {"type": "string", "description": "The question, to be understood on its own."}
_SCHEMA = {"type": "object", "properties": {"question": _QUESTION}, "required": ["question"]}


def serving_endpoint_tool(entry: ServingEndpointTool) -> dspy.Tool:
    """The tool of an endpoint; nothing is asked before the tool is called.

    Raises:
        ConfigError: the extra isn't installed.
    """
    return _chat_tool(entry) if entry.task == "chat" else _agent_tool(entry)


def _agent_tool(entry: ServingEndpointTool) -> dspy.Tool:
    clients = client_maker(entry.credentials)

    def token() -> str:
        return str(clients().config.authenticate()["Authorization"].removeprefix("Bearer "))

    url = f"{clients().config.host}/serving-endpoints/{entry.endpoint}"
    name, description = entry.name or entry.endpoint, entry.description or ""
    made = endpoint_tool(url, name, description, api_key=token, timeout=entry.timeout)
    guarded = tool(made.func, approval=entry.approval)
    return dspy.Tool(guarded.func, name, description, made.args, made.arg_types)


def _chat_tool(entry: ServingEndpointTool) -> dspy.Tool:
    clients, name = client_maker(entry.credentials), entry.name or entry.endpoint

    def call(given: dict[str, Any]) -> str:
        return nested(name, None, lambda spend: listen(lambda tell: ask(given["question"], spend), lambda told: None))

    def ask(question: str, spend: Spend) -> str:
        from databricks.sdk.service.serving import ChatMessage, ChatMessageRole

        with told_as_tool_error():
            said = [ChatMessage(content=question, role=ChatMessageRole.USER)]
            response = clients().serving_endpoints.query(entry.endpoint, messages=said)
        if usage := response.usage:
            read, written = usage.prompt_tokens or 0, usage.completion_tokens or 0
            tokens = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
            spend.add_usage(f"endpoint/{name}", tokens)
        answers = [choice.message.content for choice in response.choices or [] if choice.message]
        if not answers or not answers[0]:
            raise ToolError("the model gave no answer; do without it, or ask it otherwise")
        return answers[0]

    return foreign_tool(call, name, entry.description or "", _SCHEMA, entry)
