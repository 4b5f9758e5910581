"""``AgentConfig``: sources, validation and error messages."""

# ruff: noqa: E501 (a table of whole messages)
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mlflow.models.model_config import _set_model_config
from pydantic import ValidationError

from oneturn.config import AgentConfig, LMConfig
from oneturn.config.loading import resolve
from oneturn.errors import ConfigError

SECRETS = [
    "sk-proj-abcdef1234567890",
    "dapi0123456789abcdef0123456789abcdef",
    "ghp_0123456789abcdefghij",
    "hf_0123456789abcdefghij",
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30.x1",
    "Bearer abc",
]


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("ONETURN_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    yield
    _set_model_config(None)


def write(path: str, text: str) -> str:
    Path(path).write_text(text, encoding="utf-8")
    return path


def refusal(keys: dict[str, Any] | str) -> str:
    with pytest.raises(ConfigError) as caught:
        AgentConfig.read(keys)
    return str(caught.value)


# Each error with its full message.
LM_KEYS = "api_base, api_key_env, cache, credentials, kwargs, max_tokens, model, temperature, timeout, weights"
TOP_KEYS = "approvals, compile, compiled, data, deploy, gate, judge, lm, max_iters, mlflow, retriever, serve, thoughts, tool_calling, tools"
LOCAL = "'local/1.5B' runs in this process; remove api_base and api_key_env."
NO_SECRETS = (
    "looks like a secret, and a configuration is stored in plain text. Put the secret in an environment variable, "
    "and set api_key_env to the variable's name."
)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"lm": {"temprature": 0}}, f"unknown key lm.temprature. Did you mean lm.temperature? Valid keys of lm: {LM_KEYS}."),
        ({"temperature": 0}, f"unknown key temperature. Did you mean lm.temperature? Valid keys: {TOP_KEYS}."),
        ({"zzz": 0}, f"unknown key zzz. Valid keys: {TOP_KEYS}."),
        ({"max_iters": "6"}, "max_iters should be a whole number, not '6'."),
        ({"max_iters": True}, "max_iters should be a whole number, not True."),
        ({"max_iters": 0}, "max_iters should be greater than or equal to 1, not 0."),
        ({"lm": {"timeout": "soon"}}, "lm.timeout should be a number, not 'soon'."),
        ({"lm": {"timeout": 0}}, "lm.timeout should be greater than 0, not 0."),
        ({"lm": {"cache": "yes"}}, "lm.cache should be true or false, not 'yes'."),
        ({"lm": {"kwargs": 3}}, "lm.kwargs should be a mapping of keys, not 3."),
        ({"lm": "openai/x"}, "lm should be a mapping of keys, not 'openai/x'."),
        ({"compile": {"teacher": "gpt-4o"}}, "compile.teacher.model should name the provider and the model, such as 'openai/gpt-4o-mini', not 'gpt-4o'."),
        ({"compile": {"teacher": 4}}, "compile.teacher should be a mapping of keys, not 4."),
        ({"lm": None}, "lm should be a mapping of keys, not None."),
        ({"lm": {"model": 7}}, "lm.model should be a string, not 7."),
        ({"lm": {"model": "gpt-4o"}}, "lm.model should name the provider and the model, such as 'openai/gpt-4o-mini', not 'gpt-4o'."),
        ({"compiled": ["x" * 99]}, f"compiled should be a string, not ['{'x' * 57}…."),
        ({"lm": {"model": "local/1.5B", "api_base": "http://x"}}, f"lm: {LOCAL}"),
        ({"lm": {"model": "local/1.5B", "api_key_env": "KEY"}}, f"lm: {LOCAL}"),
        ({"lm": {"api_key_env": "KEY"}}, "lm: model is missing; api_base and api_key_env are settings of an LM."),
        ({"lm": {"model": "openai/x", "weights": "w.gguf"}}, "lm: weights are for the embedded LM only, not for 'openai/x'."),
        ({"lm": {"api_key_env": "my key"}}, "lm.api_key_env should be the name of an environment variable, in uppercase, not the key itself."),
        ({"serve": {"port": 70000}}, "serve.port should be less than or equal to 65535, not 70000."),
        ({"lm": {"api_key": "x"}}, f"lm.api_key {NO_SECRETS}"),
        ({"lm": {"kwargs": {"headers": [{"token": "x"}]}}}, f"lm.kwargs.headers.0.token {NO_SECRETS}"),
        ({"mlflow": {"tracking_uri": "https://me:pw@host"}}, f"mlflow.tracking_uri {NO_SECRETS}"),
        ({"judge": {"guidelines": ["Log in with ghp_0123456789abcdefghij."]}}, f"judge.guidelines.0 {NO_SECRETS}"),
        ({"tools": [{"kind": "genie", "space": "g", "row": 1}]}, "unknown key tools.0.genie.row. Did you mean tools.0.genie.rows? Valid keys of tools.0.genie: approval, credentials, description, kind, max_chars, name, rows, space, timeout."),
        ({"tools": [{"kind": "geni"}]}, "tools.0.kind should be one of 'unity_catalog', 'mcp', 'genie', 'serving_endpoint', not 'geni'."),
        ({"tools": [{}]}, "tools.0.kind is missing; it is one of unity_catalog, mcp, genie, serving_endpoint."),
        ({"deploy": {"resources": [{"kind": "table", "name": "t", "nme": "x"}]}}, "unknown key deploy.resources.0.nme. Did you mean deploy.resources.0.name? Valid keys of deploy.resources.0: kind, name."),
        ({"approvals": {"key_env": "not a name"}}, "approvals.key_env should be the name of an environment variable, not its value."),
        ({"approvals": {"ledger": "sqlite:///a.db", "ledger_env": "LEDGER"}}, "approvals: set either ledger or ledger_env."),
    ],
)  # fmt: skip
def test_an_error_names_the_key_the_value_and_the_expected_value(keys: dict[str, Any], message: str):
    assert refusal(keys) == f"the configuration: {message}"


PASSWORDS = (
    "postgresql+psycopg://me:hunter2@db/agent",
    "postgresql://:hunter2@db/agent",
    "postgresql://me:p%40ss@db/agent",
    "postgresql://db/agent?user=me&password=hunter2",
    "mssql+pyodbc:///?odbc_connect=x&PWD=hunter2",
)


@pytest.mark.parametrize("address", PASSWORDS)
def test_a_ledger_s_address_with_a_password_is_refused_without_repeating_it(address: str):
    for read in (AgentConfig.read, AgentConfig.model_validate):
        with pytest.raises((ConfigError, ValidationError), match="ledger_env") as refused:
            read({"approvals": {"ledger": address}})
        if isinstance(refused.value, ConfigError):
            assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("address", ["sqlite:///approvals.db", "postgresql+psycopg://me@db:5432/agent", "sqlite://"])
def test_a_ledger_s_address_without_a_password_stays(address: str):
    assert AgentConfig.read({"approvals": {"ledger": address}}).approvals.ledger == address


def test_a_teacher_is_a_model_string_or_a_section():
    named = AgentConfig.read({"compile": {"teacher": "openai/gpt-4o"}})
    section = AgentConfig.read({"compile": {"teacher": {"model": "openai/gpt-4o"}}})
    assert named == section == AgentConfig.read(named.to_model_config())
    assert named.compile.teacher == LMConfig(model="openai/gpt-4o")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "c.yaml: should hold a mapping of keys."),
        ("lm: [\n", "c.yaml: invalid YAML: expected the node content, but found '<stream end>' (line 2, column 1)."),
        ("lm:\n\tmodel: x\n", "c.yaml: invalid YAML: found character '\\t' that cannot start any token (line 2, column 1)."),
        ("max_iters: six\n", "c.yaml: max_iters should be a whole number, not 'six'."),
        ("a: 1\nb: 2\n", f"c.yaml: unknown key a. Valid keys: {TOP_KEYS}.\nc.yaml: unknown key b. Valid keys: {TOP_KEYS}."),
    ],
)  # fmt: skip
def test_an_error_in_a_file_names_the_file(text: str, message: str):
    assert refusal(write("c.yaml", text)) == message


def test_a_file_that_is_not_text_is_refused():
    Path("c.yaml").write_bytes(b"\xff\xfe\x00\x81")
    assert refusal("c.yaml") == "c.yaml: not a UTF-8 text file."


def test_the_error_for_a_missing_file_names_the_folders_searched(tmp_path: Path):
    root = tmp_path / "code"
    with pytest.raises(ConfigError) as caught:
        AgentConfig.read("configs/dev.yaml", root=root)
    places = f"{root / 'configs'} or {tmp_path / 'configs'}"
    assert str(caught.value) == f"There is no file 'configs/dev.yaml': 'dev.yaml' isn't in {places}."


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("key", ["model", "api_base", "api_key_env", "api_key", "unknown", "max_tokens"])
def test_a_secret_is_refused_and_never_repeated(secret: str, key: str):
    message = refusal({"lm": {key: secret}})
    assert f"lm.{key}" in message
    assert secret not in message
    assert secret[8:] not in message or len(secret) < 12


@pytest.mark.parametrize(
    "harmless", ["sk-learn-experiments", "dapi", "/Shared/token_counts", "http://127.0.0.1:8000/v1"]
)
def test_ordinary_values_are_not_treated_as_secrets(harmless: str):
    assert AgentConfig.read({"mlflow": {"experiment": harmless}}).mlflow.experiment == harmless


def test_token_counts_are_not_treated_as_secrets():
    assert AgentConfig.read({"lm": {"kwargs": {"token": 3}}}).lm.kwargs == {"token": 3}


def test_missing_keys_have_their_defaults():
    config = AgentConfig.read({"max_iters": 2})
    assert (config.max_iters, config.lm, config.serve.port) == (2, LMConfig(), 8000)


@pytest.mark.parametrize("nothing", ["", "# only a comment\n", "{}\n"])
def test_an_empty_configuration_is_all_defaults(nothing: str):
    assert AgentConfig.read(write("c.yaml", nothing)) == AgentConfig.read({}) == AgentConfig()


def test_an_integer_is_accepted_as_a_number():
    assert AgentConfig.read({"lm": {"timeout": 30, "temperature": 1}}).lm.timeout == 30.0


def test_the_environment_variable_overrides_the_default(monkeypatch: pytest.MonkeyPatch):
    write("dev.yaml", "max_iters: 1\n")
    monkeypatch.setenv("ONETURN_CONFIG", write("prod.yaml", "max_iters: 2\n"))
    assert AgentConfig.read("dev.yaml").max_iters == 2
    assert AgentConfig.read({"max_iters": 1}).max_iters == 2
    monkeypatch.setenv("ONETURN_CONFIG", "")
    assert AgentConfig.read("dev.yaml").max_iters == 1


def test_the_configuration_of_a_logged_model_takes_precedence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ONETURN_CONFIG", write("prod.yaml", "max_iters: 2\n"))
    _set_model_config({"max_iters": 3})
    assert AgentConfig.read("not-there.yaml").max_iters == 3
    _set_model_config({"max_itres": 3})
    assert refusal({}).startswith("the logged model's model_config: unknown key max_itres. Did you mean max_iters?")


def test_the_error_for_a_model_logged_without_configuration_gives_the_fix():
    _set_model_config("")  # as MLflow does for such a model
    expected = (
        "This model was logged without a configuration: pass model_config=config.to_model_config() to log_model()."
    )
    assert refusal({}) == expected


def test_a_relative_path_is_resolved_in_the_first_folder_that_has_it(tmp_path: Path):
    root = tmp_path / "code"
    (root / "data").mkdir(parents=True)
    (root / "data" / "p.json").write_text("{}")
    assert resolve("data/p.json", tmp_path, root) == root / "data" / "p.json"
    Path("data").mkdir()
    Path("data/p.json").write_text("{}")
    assert resolve("data/p.json", tmp_path, root) == tmp_path / "data" / "p.json"
    assert resolve(tmp_path / "data" / "p.json", root) == tmp_path / "data" / "p.json"


def test_the_default_is_the_agents_own_file_and_the_variable_names_one_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    root = tmp_path / "agent"
    root.mkdir()
    (root / "c.yaml").write_text("max_iters: 2")
    Path("c.yaml").write_text("max_iters: 3")
    assert AgentConfig.read("c.yaml", root=root).max_iters == 2
    monkeypatch.setenv("ONETURN_CONFIG", "c.yaml")
    assert AgentConfig.read("c.yaml", root=root).max_iters == 3


def test_a_configuration_round_trips_through_model_config():
    config = AgentConfig.read({"lm": {"model": "openai/x", "api_key_env": "KEY"}, "max_iters": 2})
    assert AgentConfig.read(config.to_model_config()) == config


def test_keys_of_a_subclass_are_validated():
    class Mine(AgentConfig):
        polite: bool = True

    assert Mine.read({"polite": False}).polite is False
    with pytest.raises(ConfigError, match="Did you mean polite"):
        Mine.read({"pollite": False})


def test_a_configuration_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        AgentConfig().max_iters = 3


def test_names_of_headers_and_of_redactions_are_no_secrets():
    server = {
        "kind": "mcp",
        "url": "https://a.example/mcp",
        "headers": {"X-Api-Key": "MCP_KEY", "PRIVATE-TOKEN": "GIT"},
    }
    config = AgentConfig.read({"tools": [server], "data": {"redact": {"passcode": r"code \d{4}"}}})
    assert config.data.redact["passcode"]
    server["headers"] = {"X-Api-Key": "sk-proj-" + "a1B2c3D4" * 6}
    assert "looks like a secret" in refusal({"tools": [server]})
