"""``build_lm`` builds the LM that a configuration names."""

from __future__ import annotations

import sys

import pytest

from oneturn.config import AgentConfig, LMConfig
from oneturn.config.lm import LOCAL_SIZES
from oneturn.core.run_context import call_settings
from oneturn.errors import ConfigError, LocalLMError
from oneturn.lm import build_lm
from oneturn.lm.local import WEIGHTS


def test_a_provider_lm_gets_the_configured_settings(monkeypatch: pytest.MonkeyPatch):
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
    settings = {**lm.kwargs, "model": lm.model, "cache": lm.cache}
    expected = {"model": "openai/x", "max_tokens": 7, "temperature": 0.0, "cache": False, "top_p": 0.5, "timeout": 5.0}
    assert expected.items() <= settings.items()


def test_null_settings_use_the_provider_defaults():
    lm = build_lm(LMConfig(model="openai/x", temperature=None, max_tokens=None))
    assert lm.kwargs.get("temperature") is None
    assert lm.kwargs.get("max_tokens") is None


@pytest.mark.parametrize(
    ("model", "temperature"),
    [
        ("openai/gpt-5-mini", None),
        ("openai/gpt-5.2", None),
        ("openai/o3", None),
        ("azure/gpt-5", None),
        ("databricks/databricks-gpt-5", None),
        ("openai/gpt-5-chat-latest", 0.0),
        ("openai/gpt-4o-mini", 0.0),
        ("databricks/databricks-gpt-oss-120b", 0.0),
    ],
)
def test_a_reasoning_model_that_refuses_temperature_0_gets_none(model: str, temperature: float | None):
    lm = build_lm(LMConfig(model=model, api_base="http://127.0.0.1:9/v1", kwargs={"api_key": "x"}))
    assert lm.kwargs.get("temperature") == temperature


@pytest.mark.parametrize(
    ("model", "name"), [("openai/gpt-5-mini", "max_completion_tokens"), ("openai/x", "max_tokens")]
)
def test_a_request_s_token_limit_replaces_the_configured_one(model: str, name: str):
    lm = build_lm(LMConfig(model=model, max_tokens=16000, kwargs={"api_key": "x"}))
    settings = call_settings({"max_tokens": 500, "top_p": 0.5}, lm)
    assert settings == {name: 500, "top_p": 0.5}
    assert {**lm.kwargs, **settings}[name] == 500
    assert len({"max_tokens", "max_completion_tokens"} & {**lm.kwargs, **settings}.keys()) == 1


@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_key_names_its_environment_variable(monkeypatch: pytest.MonkeyPatch, value: str | None):
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


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("thread", "there is no 'thread', perhaps 'threads' is meant."),
        ("reasoning_effort", "there is no 'reasoning_eff"),
    ],
)
def test_an_unknown_argument_of_the_embedded_lm_is_an_error_before_the_first_request(name: str, message: str):
    with pytest.raises(ConfigError, match=message):
        build_lm(LMConfig(model="local/0.5B", kwargs={name: 1}))


def test_without_an_lm_the_error_says_how_to_name_each_kind():
    with pytest.raises(ConfigError, match="No LM is configured") as caught:
        build_lm(LMConfig())
    *text, databricks, openai, ollama, local = str(caught.value).splitlines()
    choices = [databricks, openai, ollama, local]
    assert "--set lm.model=" in " ".join(text)
    assert [line.split("/")[0].strip() for line in choices] == ["databricks", "openai", "ollama_chat", "local"]
    assert "OPENAI_API_KEY" in choices[1]
    assert 'pip install "oneturn[local]"' in choices[3]


def test_a_missing_extra_is_an_error_before_any_download(monkeypatch: pytest.MonkeyPatch):
    lm = build_lm(LMConfig(model="local/0.5B"))
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    monkeypatch.setattr("oneturn.lm.local.engine.fetch_weights", lambda *_: pytest.fail("the weights are fetched"))
    for use in (lambda: build_lm(LMConfig(model="local/0.5B")), lm.engine.server):
        with pytest.raises(LocalLMError, match=r'needs xllamacpp: pip install "oneturn\[local\]"'):
            use()


def test_an_unknown_size_is_rejected():
    with pytest.raises(ConfigError, match=r"the embedded LM has no size '7B'; use local/0\.5B or local/1\.5B"):
        AgentConfig.read({"lm": {"model": "local/7B"}})
    assert set(LOCAL_SIZES) == set(WEIGHTS)
