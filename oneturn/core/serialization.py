"""Values as strict JSON in UTF-8 has them, which every client can read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dspy.adapters.utils import serialize_for_json


def plain(value: Any) -> Any:
    """The value as JSON (RFC 8259) has it: of what it hasn't, the nearest.

    A number that isn't finite is ``None``, half a surrogate pair is U+FFFD, an object of a type that nobody knows is
    its text.
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
    """The value with every text in its mappings and lists made :func:`sound`; the rest of it as it is."""
    if isinstance(value, str):
        return replace_surrogates(value)
    if isinstance(value, Mapping):
        return {replace_surrogates(str(key)): replace_surrogates_deep(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [replace_surrogates_deep(inner) for inner in value]
    return value


def replace_surrogates(text: str) -> str:
    """The text, with U+FFFD for each half of a surrogate pair: an LM may write one, UTF-8 hasn't any."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def jsonable(value: Any) -> Any:
    """``serialize_for_json`` of DSPy, which makes a validator for each value: plain ones need none."""
    return value if value is None or isinstance(value, str | int | float) else serialize_for_json(value)
