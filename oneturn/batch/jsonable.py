"""A value as JSON has it."""

from __future__ import annotations

from typing import Any

from dspy.adapters.utils import serialize_for_json


def jsonable(value: Any) -> Any:
    """``serialize_for_json`` of DSPy, which makes a validator for each value: plain ones need none."""
    return value if value is None or isinstance(value, str | int | float) else serialize_for_json(value)
