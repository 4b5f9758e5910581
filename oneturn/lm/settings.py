"""The settings of an LM that decide its answers."""

from __future__ import annotations

import os
from typing import Any

import dspy

from oneturn.core.settings import named_settings, object_settings


def lm_settings(lm: dspy.BaseLM | None) -> list[Any]:
    """What decides an LM's answers, without keys: an agent may build it from more than its configuration."""
    if lm is None:
        return []
    addresses = [os.environ.get(name) for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE")]
    return [
        lm.model,
        lm.model_type,
        named_settings(lm.kwargs),
        named_settings(object_settings(getattr(lm, "engine", None))),
        addresses,
    ]
