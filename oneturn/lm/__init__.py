"""``build_lm()`` builds the LM that a configuration names."""

from __future__ import annotations

import os
from typing import Any

import dspy

from oneturn.config import LMConfig
from oneturn.core._dspy import takes_default_temperature_only
from oneturn.errors import ConfigError
from oneturn.lm import endings as _endings  # noqa: F401 (every LM uses them from here on)
from oneturn.lm import transport as _transport  # noqa: F401
from oneturn.lm.providers import no_lm_message


def build_lm(config: LMConfig) -> dspy.BaseLM:
    """Return the LM that ``config`` names. It sends no request and downloads no weights before its first call.

    Raises:
        ConfigError: no LM is named, the environment variable for the API key isn't set, or the LM doesn't accept one
            of ``kwargs``.
        LocalLMError: the embedded LM is named, and its extra isn't installed.
    """
    if not config.model:
        raise ConfigError(no_lm_message())
    settings = _settings(config)
    try:
        if config.is_local:
            from oneturn.lm.local import local_lm, require_extra

            require_extra()
            return local_lm(config.model.removeprefix("local/"), weights=config.weights, **settings)
        if config.is_workspace:
            from oneturn.lm.databricks import databricks_lm

            return databricks_lm(config.model, credentials=config.credentials, **settings)
        return dspy.LM(config.model, **settings)
    except TypeError as error:
        raise ConfigError(f"The LM {config.model!r} doesn't accept one of its kwargs: {error}.") from error


def _settings(config: LMConfig) -> dict[str, Any]:
    """Return the keyword arguments of the LM's constructor. Null settings are left to the provider's defaults."""
    settings = {
        "api_base": config.api_base,
        "api_key": _api_key(config),
        "temperature": _temperature(config),
        "max_tokens": config.max_tokens,
    }
    non_null = {key: value for key, value in settings.items() if value is not None}
    return {"timeout": config.timeout, "cache": config.cache, **non_null, **config.kwargs}


def _temperature(config: LMConfig) -> float | None:
    """Return the temperature; ``None`` instead of the default 0 for an LM that refuses it."""
    if config.temperature == 0 and takes_default_temperature_only(config.model):
        return None
    return config.temperature


def _api_key(config: LMConfig) -> str | None:
    if config.api_key_env is None:
        return None
    key = os.environ.get(config.api_key_env)
    if not key:
        raise ConfigError(
            f"The environment variable {config.api_key_env} isn't set: it should hold the key for {config.model!r} "
            "(api_key_env names it)."
        )
    return key
