"""What an MCP tool gives, as the LM reads it: text, structured content, and in a word what can't be read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from oneturn.errors import ToolError

if TYPE_CHECKING:
    from mcp.types import CallToolResult


def told_result(result: CallToolResult) -> str:
    """The result's text; its structured content as JSON, where no text says the same.

    Raises:
        ToolError: the server says that the tool has failed.
    """
    texts = [text for part in result.content if (text := _part(part))]
    structured = result.structured_content
    if structured is not None and not any(_says(text, structured) for text in texts):
        texts.append(json.dumps(structured, ensure_ascii=False))
    if result.is_error:
        raise ToolError("\n".join(texts) or "the tool failed, and said nothing of it")
    return "\n".join(texts)


def _part(part: Any) -> str:
    kind = part.type
    if kind == "text":
        return str(part.text)
    if kind == "resource_link":
        return f"(a link to the resource {part.uri}{f', {part.description}' if part.description else ''})"
    if kind == "resource":
        text = getattr(part.resource, "text", None)
        where = f"the resource {part.resource.uri}"
        return f"{where}:\n{text}" if text is not None else f"({where}, which is no text)"
    return f"(content of the kind {kind}, {getattr(part, 'mime_type', 'unknown')}, which can't be read here)"


def _says(text: str, structured: Any) -> bool:
    """Whether a text is the structured content: as JSON, or as the bare value that the server put into ``result``."""
    bare = structured["result"] if isinstance(structured, dict) and set(structured) == {"result"} else structured
    if text == bare:
        return True
    try:
        return json.loads(text) in (structured, bare)
    except ValueError:
        return False
