"""``databricks_lm``: an LM behind a serving endpoint of the workspace, as DSPy asks it."""

from __future__ import annotations

from typing import Any

import dspy

from oneturn.databricks.credentials import Who
from oneturn.databricks.lm_engine import AsyncEndpointEngine, EndpointEngine
from oneturn.errors import ConfigError

PREFIX = "databricks/"


def databricks_lm(
    model: str, *, credentials: Who = "agent", timeout: float = 120.0, cache: bool = True, **options: Any
) -> dspy.LM:
    """Return a ``databricks_dspy.DatabricksLM`` that calls nothing before its first call.

    Every way to ask it (``lm()``, ``acall``, streaming) takes the same credentials, those of the moment: a token that
    has expired is renewed. None is kept in the LM, in what is saved of it, or in the key of DSPy's cache.

    Args:
        model: ``databricks/<the name of a serving endpoint>``, of the chat task.
        credentials: whose: the agent's own, or of the ``"user"`` who asks.
        timeout: seconds to wait for the next byte of an answer.
        cache: let DSPy answer a repeated request from its cache, whoever asks.
        **options: anything else ``dspy.LM`` takes.

    Raises:
        ConfigError: the extra isn't installed; or answers to one user would be kept for others.
    """
    if credentials == "user" and cache:
        raise ConfigError("With lm.credentials: user, set lm.cache: false: what one may read isn't for all.")
    engine = EndpointEngine(model.removeprefix(PREFIX), credentials, timeout)
    kept: dspy.LM = _class()(model, engine=engine, async_engine=AsyncEndpointEngine(engine), cache=cache, **options)
    return kept


def _class() -> type[dspy.LM]:
    try:
        import databricks_dspy  # noqa: F401 (the class below is its)
    except ModuleNotFoundError:
        raise ConfigError('databricks/… needs the extra: pip install "oneturn[databricks]"') from None
    from oneturn.databricks.lm_class import EndpointLM

    return EndpointLM
