"""Cached LM capabilities. DSPy searches its whole list of models at each lookup."""

from __future__ import annotations

import weakref
from typing import Any

import dspy

_NAMES = ("supports_function_calling", "supports_reasoning", "supports_response_schema", "supported_params")
"""What an LM says about itself, and an engine about its LM: DSPy uses the same attributes for both."""

_cache: weakref.WeakKeyDictionary[dspy.LM, tuple[str, dict[str, Any]]] = weakref.WeakKeyDictionary()


def copy_capabilities(lm: dspy.LM, engine: object) -> None:
    """Give ``engine``, which wraps the engine of ``lm``, the capabilities of ``lm``: from the cache if unchanged."""
    model, capabilities = _cache.get(lm, (None, {}))
    if model != lm.model:
        capabilities = {name: getattr(lm, name) for name in _NAMES}
        _cache[lm] = (lm.model, capabilities)
    vars(engine).update(capabilities)
