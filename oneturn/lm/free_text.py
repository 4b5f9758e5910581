"""Free text before the JSON of a reply: a key of the schema asks for it, and an engine with ``free_text`` allows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BEFORE_JSON = "Answer:"
"""What the LM writes between the text and the JSON: models end their reasoning with it, and don't write on."""
_FREE_TEXT = "x-free-text"


def with_free_text(schema: Mapping[str, Any], max_tokens: int) -> dict[str, Any]:
    """Return a schema of a reply that begins with up to ``max_tokens`` tokens of text before the JSON."""
    return {**schema, _FREE_TEXT: max_tokens}


def split_free_text(schema: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """Return the schema of the JSON alone, and the maximum number of tokens of the text before it; 0 for no text."""
    return {key: value for key, value in schema.items() if key != _FREE_TEXT}, int(schema.get(_FREE_TEXT, 0))
