"""Convert values to strict JSON in UTF-8."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from typing import Any

from oneturn.core._dspy import serialize_for_json


def plain(value: Any) -> Any:
    """Convert a value to JSON types (RFC 8259).

    Non-finite numbers become ``None``, lone surrogates U+FFFD, and objects of unknown types their text.
    """
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return replace_surrogates(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {replace_surrogates(str(key)): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return plain(serialize_for_json(value))


def replace_surrogates_deep(value: Any) -> Any:
    """Apply :func:`replace_surrogates` to every text in nested mappings and lists; other values are unchanged."""
    if isinstance(value, str):
        return replace_surrogates(value)
    if isinstance(value, Mapping):
        return {replace_surrogates(str(key)): replace_surrogates_deep(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [replace_surrogates_deep(inner) for inner in value]
    return value


def replace_surrogates(text: str) -> str:
    """Replace lone surrogates by U+FFFD: an LM may write them, and UTF-8 can't encode them."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def jsonable(value: Any) -> Any:
    """Convert a value to JSON types as DSPy does in prompts; what has none becomes its text.

    Scalars, NumPy's floats among them, are returned unchanged: DSPy creates a validator for each value.
    """
    if value is None or (isinstance(value, str | int | float) and not isinstance(value, enum.Enum)):
        return value
    return serialize_for_json(value)
