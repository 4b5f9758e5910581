"""Free text before the JSON of a reply: a key of the schema asks for it, and an engine with ``free_text`` allows it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

BEFORE_JSON = "Answer:"
"""What the LM writes between the text and the JSON: models end their reasoning with it, and don't write on."""
ANSWER_LINE = re.compile(rf"(?m)^[\s*_#>]*{BEFORE_JSON}")
"""Where the line of the answer begins, in a text that ends with it."""
_FREE_TEXT = "x-free-text"


@dataclass(frozen=True)
class FreeText:
    """The text before the JSON of a reply.

    Attributes:
        max_tokens: its maximum number of tokens.
        with_answer: whether it ends after the line with ``BEFORE_JSON``; otherwise at ``BEFORE_JSON``.
    """

    max_tokens: int
    with_answer: bool = False


def with_free_text(schema: Mapping[str, Any], text: FreeText) -> dict[str, Any]:
    """Return a schema of a reply that begins with text before the JSON."""
    return {**schema, _FREE_TEXT: asdict(text)}


def split_free_text(schema: Mapping[str, Any]) -> tuple[dict[str, Any], FreeText | None]:
    """Return the schema of the JSON alone, and the text before it; ``None`` for no text."""
    text = schema.get(_FREE_TEXT)
    json_schema = {key: value for key, value in schema.items() if key != _FREE_TEXT}
    return json_schema, None if text is None else FreeText(**text)
