"""Inheritance between configuration files, and overrides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from oneturn.cli import app
from oneturn.config import AgentConfig
from oneturn.config.loading import SET_VARIABLE, merged, setting
from oneturn.errors import ConfigError

KEYS = st.recursive(st.integers(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner), max_leaves=8)
MAPPINGS = st.dictionaries(st.sampled_from("abc"), KEYS)


def files(folder: Path, **texts: str) -> None:
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text)


def test_a_file_overrides_keys_of_the_file_it_extends(tmp_path: Path):
    files(
        tmp_path,
        prod="lm: {model: databricks/claude, timeout: 60}\nmax_iters: 4\n",
        staging="extends: prod.yaml\nlm: {timeout: 9}\n",
        mine="extends: staging.yaml\nmax_iters: 2\n",
    )
    config = AgentConfig.read(tmp_path / "mine.yaml")
    assert (config.lm.model, config.lm.timeout, config.max_iters) == ("databricks/claude", 9, 2)


def test_the_extended_path_is_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "configs").mkdir()
    files(tmp_path / "configs", prod="max_iters: 4\n", staging="extends: prod.yaml\n")
    monkeypatch.chdir(tmp_path)
    assert AgentConfig.read("configs/staging.yaml").max_iters == 4


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"a": "extends: b.yaml\n", "b": "extends: a.yaml\n"}, "extends 'a.yaml', which is circular"),
        ({"a": "extends: a.yaml\n"}, "extends 'a.yaml', which is circular"),
        ({"a": "extends: none.yaml\n"}, "'none.yaml' isn't in"),
        ({"a": "extends: [b.yaml]\n"}, "extends should name a file"),
        ({"a": "extends: b.yaml\n", "b": "- 1\n"}, "should hold a mapping of keys"),
        ({"a": "extends: b.yaml\n", "b": "lm: {modell: x/y}\n"}, "unknown key lm.modell"),
        ({"a": "extends: b.yaml\n", "b": "lm: {api_key: sk-of-nobody}\n"}, "lm.api_key"),
    ],
)
def test_errors_in_extended_files(texts: dict[str, str], message: str, tmp_path: Path):
    files(tmp_path, **texts)
    with pytest.raises(ConfigError) as caught:
        AgentConfig.read(tmp_path / "a.yaml")
    assert message in str(caught.value)
    assert "sk-of-nobody" not in str(caught.value)


@given(MAPPINGS, MAPPINGS)
def test_merging_overrides_keys_and_keeps_the_others(base: dict[str, Any], overrides: dict[str, Any]):
    result = merged(base, overrides)
    assert merged(result, overrides) == result
    assert merged(base, {}) == base
    assert merged({}, overrides) == overrides
    assert result.keys() == base.keys() | overrides.keys()
    assert all(result[name] == value for name, value in overrides.items() if not isinstance(value, dict))


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("lm.model=local/0.5B", {"lm": {"model": "local/0.5B"}}),
        ("compiled=null", {"compiled": None}),
        ("max_iters=3", {"max_iters": 3}),
        ("lm.kwargs={slots: 2}", {"lm": {"kwargs": {"slots": 2}}}),
        ("deploy.environment.A=x=y", {"deploy": {"environment": {"A": "x=y"}}}),
    ],
)
def test_the_value_of_an_override_is_parsed_as_yaml(text: str, keys: dict[str, Any]):
    assert setting(text) == keys


@pytest.mark.parametrize("text", ["max_iters", "=3", "lm..model=x", "compiled=[", ".=1"])
def test_an_invalid_override_is_rejected(text: str):
    with pytest.raises(ConfigError):
        setting(text)


def test_overrides_take_precedence_over_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    files(tmp_path, prod="max_iters: 4\n", staging="extends: prod.yaml\nmax_iters: 5\n")
    monkeypatch.setenv(SET_VARIABLE, "max_iters=6\nlm.model=openai/x")
    config = AgentConfig.read(tmp_path / "staging.yaml")
    assert (config.max_iters, config.lm.model) == (6, "openai/x")
    monkeypatch.setenv(SET_VARIABLE, "max_itres=6")
    with pytest.raises(ConfigError, match="with max_itres set: unknown key max_itres"):
        AgentConfig.read(tmp_path / "staging.yaml")


def test_overrides_dont_apply_to_a_logged_model(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(SET_VARIABLE, "max_iters=6")
    monkeypatch.setattr(mlflow.models.model_config, "__mlflow_model_config__", {"max_iters": 2}, raising=False)
    assert AgentConfig.read({}).max_iters == 2


def test_the_command_line_accepts_overrides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    arguments = ["--set", "lm.model=openai/gpt", "--set", "lm.api_key_env=NO_SUCH_KEY", "doctor"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1
    assert "NO_SUCH_KEY isn't set: it must contain the key for openai/gpt" in done.output
    refused = CliRunner().invoke(app, ["--set", "max_iters", "doctor"])
    assert refused.exit_code == 1
    assert "'max_iters' isn't KEY=VALUE" in refused.output
