"""Cached LM capabilities. DSPy searches its whole list of models at each lookup."""

from __future__ import annotations

import weakref

import dspy
from dspy.clients.capabilities import Capabilities, capabilities

_cache: weakref.WeakKeyDictionary[dspy.LM, tuple[str, Capabilities]] = weakref.WeakKeyDictionary()


def known_capabilities(lm: dspy.LM) -> Capabilities:
    """Return the capabilities of ``lm``, from the cache if its model hasn't changed."""
    model, result = _cache.get(lm, (None, None))
    if result is None or model != lm.model:
        result = capabilities(lm)
        _cache[lm] = (lm.model, result)
    return result
