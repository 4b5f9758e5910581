"""The settings of objects as plain values without secrets, by which they are recognized in another process."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from oneturn.core.secrets import is_secret_name


def object_settings(value: Any) -> Mapping[str, Any]:
    """The settings of an object: its state as it saves it, or its constructor's arguments that it keeps.

    Other attributes, such as counters and connections, change while it runs; texts, such as an address, don't.
    """
    if callable(getattr(type(value), "dump_state", None)):  # the class's: a mock has any attribute
        state: Mapping[str, Any] = value.dump_state()
        return state
    attributes = getattr(value, "__dict__", {})
    names = constructor_arguments(type(value)) if attributes else ()
    return {name: each for name, each in attributes.items() if isinstance(each, str) or name.lstrip("_") in names}


def constructor_arguments(kind: type) -> tuple[str, ...]:
    """The names of a constructor's parameters; none if they are unknown."""
    try:
        # A class may hide one of them: DSPy's metaclass that of the class, pydantic's models that of __init__.
        return (*inspect.signature(kind).parameters, *inspect.signature(kind.__init__).parameters)  # type: ignore[misc]
    except (TypeError, ValueError):  # implemented in C
        return ()


def named_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by name without secrets; a value that isn't plain is its type."""
    return {
        name: value if is_plain(value) else type(value).__name__
        for name, value in settings.items()
        if not (is_secret_name(name) or "key" in name)
    }


def is_plain(value: Any) -> bool:
    """Whether a value consists of JSON's types."""
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    if isinstance(value, dict):
        return all(map(is_plain, value.values()))
    return value is None or isinstance(value, str | int | float)
