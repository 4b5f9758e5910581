"""The embedded LM: a small open model that runs inside the process, without a service or an API key.

``local_lm()`` is a ``dspy.LM`` over llama.cpp's own server, started in this process at the LM's first call. Its
weights come from a given path, the cache or the publisher's repository. Their SHA-256 is verified.
Needs the extra: ``pip install "oneturn[local]"``.
"""

from __future__ import annotations

import difflib
import inspect
from pathlib import Path
from typing import Any

import dspy

from oneturn.lm.local.engine import AsyncLocalEngine, LocalEngine
from oneturn.lm.local.prompt_cache import warm_up
from oneturn.lm.local.server import ServerSettings, require_extra
from oneturn.lm.local.weights import WEIGHTS, Weights, fetch_weights, weights_for


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
    """Return a ``dspy.LM`` over the embedded model. Its first call downloads the weights and starts the server.

    Args:
        size: ``"0.5B"`` or ``"1.5B"``.
        weights: path of the GGUF file; ``None`` to use the cache, then the network.
        slots: number of requests processed concurrently.
        context: maximum tokens of a request, prompt and answer together.
        threads: number of cores to use; ``None`` for all that are available to this process.
        timeout: seconds to wait for the next byte of a response, time in the server's queue included.
        temperature: sampling temperature; 0 for greedy decoding.
        max_tokens: maximum tokens of an answer.
        cache: let DSPy answer a repeated request from its cache.
        **options: further arguments of ``dspy.LM``.

    Raises:
        WeightsError: ``size`` is unknown.
        LocalLMError: a setting is out of range.
        TypeError: an option is neither an argument of ``dspy.LM`` nor a parameter of a request.
    """
    known = {
        *inspect.signature(local_lm).parameters,
        *inspect.signature(dspy.LM).parameters,
        *LocalEngine.supported_params,
    }
    if unknown := sorted(options.keys() - known):
        near = difflib.get_close_matches(unknown[0], known, 1)
        raise TypeError(f"there is no {unknown[0]!r}" + (f", perhaps {near[0]!r} is meant" if near else ""))
    engine = LocalEngine(
        size=weights_for(size).size,
        weights=None if weights is None else str(weights),
        settings=ServerSettings(slots=slots, context=context, threads=threads),
        timeout=timeout,
    )
    options.setdefault("num_retries", 0)  # no local failure is transient: retrying a timeout only doubles it
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
    "require_extra",
    "warm_up",
]
