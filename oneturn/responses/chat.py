"""Convert input items to the messages of a chat, in the format of chat completions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from oneturn.errors import RequestError
from oneturn.responses.content import Item, file_in, image_in, text_in
from oneturn.tools.registry import render_result

Message = dict[str, Any]
_CALLING = "tool call"  # as MLflow's to_chat_completions_input; some endpoints of Claude refuse an empty content
_SKIPPED = ("reasoning", "mcp_approval_request", "mcp_approval_response")


def to_chat(items: Sequence[Item], media: bool = False) -> list[Message]:
    """Return the messages of input items.

    Calls that nothing separates are one assistant message, with the text before them; the result of each follows as a
    ``tool`` message. A call without a result, a result without a call, reasoning, approvals and the calls of other
    providers are left out: an API would refuse them.

    Args:
        items: the items, valid.
        media: whether the program takes images and files, as parts of user messages.

    Raises:
        RequestError: a message has an image or a file that the program doesn't take.
    """
    chat: list[Message] = []
    calls: dict[str, Message] = {}  # the last call with an id
    outputs: dict[int, str] = {}  # by the identity of the call
    calling = False  # the last message takes further calls
    for item in items:
        kind = item.get("type")
        if kind == "function_call":
            if not calling:
                chat.append({"role": "assistant", "content": ""})
            call = _call(item)
            chat[-1].setdefault("tool_calls", []).append(call)
            calls[call["id"]] = call
            calling = True
        elif kind == "function_call_output":
            if (answered := calls.pop(item["call_id"], None)) is not None:
                outputs[id(answered)] = _output(item)
            calling = False
        elif kind not in _SKIPPED and item.get("role") is not None:
            content = _content(item, media)
            if content or item["role"] != "assistant":
                chat.append({"role": item["role"], "content": content})
                calling = item["role"] == "assistant"
    return [each for message in chat for each in _with_results(message, outputs)]


def _call(item: Item) -> Message:
    function = {"name": item["name"], "arguments": item.get("arguments") or "{}"}
    return {"id": item["call_id"], "type": "function", "function": function}


def _with_results(message: Message, outputs: Mapping[int, str]) -> list[Message]:
    """A message and the results of its calls."""
    if "tool_calls" not in message:
        return [message]
    calls = [call for call in message["tool_calls"] if id(call) in outputs]
    if not calls:
        return [{"role": "assistant", "content": message["content"]}] if message["content"] else []
    results = [{"role": "tool", "tool_call_id": call["id"], "content": outputs[id(call)]} for call in calls]
    return [{**message, "content": message["content"] or _CALLING, "tool_calls": calls}, *results]


def _output(item: Item) -> str:
    """The text of a result; a ``tool`` message has no other parts."""
    output = item["output"]
    if isinstance(output, str):
        return output
    return "\n".join(text if (text := _text(part)) is not None else _label(part) for part in output)


def _text(part: Item) -> str | None:
    return part["text"] if isinstance(part.get("text"), str) else None


def _label(part: Item) -> str:
    if part.get("type") == "input_image":
        return render_result(image_in(part))
    return render_result(file_in(part) if part.get("type") == "input_file" else dict(part))


def _content(item: Item, media: bool) -> str | list[Message]:
    """The content of a message: its texts, or the parts of a user message with images or files."""
    content = item["content"]
    if isinstance(content, str):
        return content
    parts = [_part(part, media and item["role"] == "user") for part in content]
    if all(part["type"] == "text" for part in parts):
        return "\n".join(part["text"] for part in parts)
    return parts


def _part(part: Item, media: bool) -> Message:
    if (text := text_in(part)) is not None:
        return {"type": "text", "text": text}
    if not media:
        raise RequestError(f"A content part of type {part['type']!r} isn't supported: this agent accepts text only.")
    if part["type"] == "input_image":
        return {"type": "image_url", "image_url": {"url": image_in(part).url}}
    file_in(part)
    names = ("file_data", "file_id", "filename")
    return {"type": "file", "file": {name: part[name] for name in names if part.get(name)}}
