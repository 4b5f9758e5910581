"""From a configuration to the LM it names."""

from __future__ import annotations

import pytest

from oneturn.config import LMConfig
from oneturn.errors import ConfigError
from oneturn.lm import build_lm


def test_a_provider_s_lm_gets_what_the_configuration_says(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MY_KEY", "the key")
    lm = build_lm(
        LMConfig(
            model="openai/x",
            api_base="http://127.0.0.1:9/v1",
            api_key_env="MY_KEY",
            max_tokens=7,
            timeout=5.0,
            cache=False,
            kwargs={"top_p": 0.5},
        )
    )
    told = {**lm.kwargs, "model": lm.model, "cache": lm.cache}
    expected = {"model": "openai/x", "max_tokens": 7, "temperature": 0.0, "cache": False, "top_p": 0.5, "timeout": 5.0}
    assert expected.items() <= told.items()


def test_null_leaves_it_to_the_provider():
    lm = build_lm(LMConfig(model="openai/x", temperature=None, max_tokens=None))
    assert lm.kwargs.get("temperature") is None
    assert lm.kwargs.get("max_tokens") is None


@pytest.mark.parametrize("value", [None, ""])
def test_a_key_that_is_not_there_is_asked_for_by_its_variable(monkeypatch: pytest.MonkeyPatch, value: str | None):
    monkeypatch.delenv("MY_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("MY_KEY", value)
    with pytest.raises(ConfigError) as caught:
        build_lm(LMConfig(model="openai/x", api_key_env="MY_KEY"))
    expected = (
        "The environment variable MY_KEY isn't set: it should hold the key for 'openai/x' (api_key_env names it)."
    )
    assert str(caught.value) == expected


def test_the_embedded_lm_is_built_without_starting_it():
    lm = build_lm(LMConfig(model="local/0.5B", max_tokens=9, kwargs={"slots": 1}))
    assert lm.kwargs["max_tokens"] == 9


def test_a_size_that_is_not_there_is_refused():
    with pytest.raises(Exception, match="7B"):
        build_lm(LMConfig(model="local/7B"))
