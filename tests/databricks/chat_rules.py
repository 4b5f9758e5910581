"""What Databricks documents as refused in a chat request, as its endpoints would refuse it.

Sources: "Foundation Model APIs reference" (roles, ``tools``, ``tool_choice``, ``content``), "Function calling on
Databricks" and "Structured outputs on Databricks" (JSON Schema), all under docs.databricks.com/aws/en/machine-learning.
The rules on alternating users, empty content and ids of calls are those of the providers behind the endpoints.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tests.databricks.workspace import Answer, Call, refused

MAX_FUNCTIONS = 32
_NOT_SUPPORTED = ("anyOf", "oneOf", "allOf", "$ref", "prefixItems", "pattern")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def refusing(handler: Callable[[Call], Any], also: Callable[[Call], Any] = lambda call: None) -> Callable[[Call], Any]:
    """Return an endpoint that refuses what Databricks documents as refused, and answers as ``handler`` otherwise."""

    def answer(call: Call) -> Any:
        for problem in _problems(call.body):
            return refused(400, "BAD_REQUEST", problem)
        return also(call) or handler(call)

    return answer


def _problems(body: Mapping[str, Any]) -> Iterator[str]:
    yield from _message_problems(body["messages"], "claude" in body["model"])
    tools = body.get("tools") or []
    if len(tools) > MAX_FUNCTIONS:
        yield f"At most {MAX_FUNCTIONS} functions are supported in tools; the request has {len(tools)}."
    names = [tool["function"]["name"] for tool in tools]
    yield from (f"Invalid function name: {name!r}" for name in names if not _NAME.fullmatch(name))
    for tool in tools:
        yield from _schema_problems(tool["function"]["parameters"], f"tools.{tool['function']['name']}")
    choice = body.get("tool_choice")
    if choice is not None and choice not in ("auto", "none", "required"):
        named = choice.get("function", {}).get("name") if isinstance(choice, Mapping) else None
        if named not in names:
            yield f"Unsupported tool_choice: {choice!r}"
    if choice is not None and not tools:
        yield "tool_choice is only allowed when tools are specified."
    response_format = body.get("response_format") or {"type": "text"}
    if response_format["type"] not in ("text", "json_object", "json_schema"):
        yield f"Unsupported response_format: {response_format['type']}"
    if response_format["type"] == "json_schema":
        yield from _schema_problems(response_format["json_schema"]["schema"], "response_format")


def _message_problems(messages: list[Mapping[str, Any]], lists: bool) -> Iterator[str]:
    waiting: set[str] = set()
    for index, message in enumerate(messages):
        role, content = message["role"], message.get("content")
        before = messages[index - 1]["role"] if index else None
        if role not in ("system", "user", "assistant", "tool"):
            yield f"Unsupported role: {role}"
        if role == "system" and index:
            yield "The system role can only be used once, as the first message."
        if role == "user" and before == "user":
            yield "User messages must alternate with assistant messages."
        if isinstance(content, list) and not lists:
            yield "The content of a message must be a string."
        if not content and not message.get("tool_calls"):
            yield f"messages.{index}: text content must be non-empty"
        if role == "tool":
            if message["tool_call_id"] not in waiting:
                yield f"messages.{index}: unexpected tool_call_id {message['tool_call_id']}"
            waiting.discard(message["tool_call_id"])
        elif waiting:
            yield f"messages.{index}: tool calls {sorted(waiting)} have no results"
        waiting |= {call["id"] for call in message.get("tool_calls") or ()}


def _schema_problems(schema: Any, where: str) -> Iterator[str]:
    keys = list(_keys(schema))
    yield from (f"{where}: {word} is not supported in the JSON schema" for word in _NOT_SUPPORTED if word in keys)


def _keys(schema: Any) -> Iterator[str]:
    """The keywords of a schema; the names of properties are none."""
    for key, value in schema.items() if isinstance(schema, Mapping) else ():
        if key in ("properties", "$defs"):
            for inner in value.values():
                yield from _keys(inner)
            continue
        yield key
        for inner in value if isinstance(value, list) else [value]:
            yield from _keys(inner)


def replying(*replies: Mapping[str, Any]) -> Callable[[Call], Any]:
    """An endpoint that sends these messages in order; streams are in pieces of five characters."""
    left = iter(replies)

    def answer(call: Call) -> Any:
        message = {"role": "assistant", **next(left)}
        envelope = {"id": "c", "created": 0, "model": call.body["model"]}
        usage = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
        end = "tool_calls" if message.get("tool_calls") else "stop"
        if not call.body.get("stream"):
            choice = {"index": 0, "message": message, "finish_reason": end}
            return {**envelope, "object": "chat.completion", "choices": [choice], "usage": usage}
        chunks = [{"index": 0, "delta": delta, "finish_reason": None} for delta in _deltas(message)]
        chunks.append({"index": 0, "delta": {}, "finish_reason": end})
        return Answer(body=_lines(envelope, chunks, usage), headers={"Content-Type": "text/event-stream"})

    return answer


def _deltas(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    content = message.get("content") or ""
    pieces = _pieces(content) if isinstance(content, str) else ([part] for part in content)
    yield from ({"content": piece} for piece in pieces)
    for index, call in enumerate(message.get("tool_calls") or ()):
        function = call["function"]
        yield {"tool_calls": [{**call, "index": index, "function": {**function, "arguments": ""}}]}
        for piece in _pieces(function["arguments"]):
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def _pieces(text: str) -> Iterator[str]:
    return (text[start : start + 5] for start in range(0, len(text), 5))


def _lines(envelope: Mapping[str, Any], chunks: list[dict[str, Any]], usage: Mapping[str, int]) -> Iterator[bytes]:
    bodies = [*({"choices": [chunk]} for chunk in chunks), {"choices": [], "usage": usage}]
    for body in bodies:
        yield f"data: {json.dumps({**envelope, 'object': 'chat.completion.chunk', **body})}\n\n".encode()
    yield b"data: [DONE]\n\n"
