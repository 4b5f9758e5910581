"""What an LM can do, looked up once: DSPy searches its whole list of models each time that it is asked."""

from __future__ import annotations

import weakref

import dspy
from dspy.clients.capabilities import Capabilities, capabilities

_known: weakref.WeakKeyDictionary[dspy.LM, tuple[str, Capabilities]] = weakref.WeakKeyDictionary()


def known_capabilities(lm: dspy.LM) -> Capabilities:
    """The capabilities of ``lm``."""
    model, can = _known.get(lm, (None, None))
    if can is None or model != lm.model:
        can = capabilities(lm)
        _known[lm] = (lm.model, can)
    return can
