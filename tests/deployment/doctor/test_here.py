"""What `oneturn doctor` sees of this machine."""

from __future__ import annotations

import json
import re
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import oneturn
from oneturn.agent import Agent
from oneturn.cli import app
from oneturn.config import AgentConfig, LMConfig
from oneturn.deployment.doctor import Finding, Severity, check
from oneturn.deployment.doctor import local as here
from oneturn.deployment.doctor import program as program_checks
from oneturn.lm import build_lm
from oneturn.programs.state import Manifest, save_compiled
from oneturn.programs.state.interface import interface_of
from oneturn.testing import ScriptedLM


def configured(**sections: Any) -> AgentConfig:
    return AgentConfig.read(sections)


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Agent:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    return Agent(
        name="desk",
        config=configured(lm={"model": "openai/some-lm", "api_base": "http://127.0.0.1:9/v1"}),
        build=lambda: oneturn.ReAct("question -> answer", tools=[]),
        metric=lambda gold, pred, trace=None: 1.0,
        examples=lambda split: [],
        recipes={},
        root=tmp_path,
        code_paths=(),
        example_questions=("Why?",),
    )


def states(findings: Any) -> dict[str, str]:
    return {finding.check: finding.severity.value for finding in findings}


def test_all_packages_of_the_tests_are_what_oneturn_needs():
    config = configured(
        lm={"model": "local/0.5B"},
        mlflow={"tracking_uri": "databricks"},
        compile={"recipe": "miprov2"},
        tools=[{"kind": "mcp", "command": "server"}],
    )
    found = list(here.packages(config))
    assert {finding.severity for finding in found} == {Severity.ok}
    assert [finding.check for finding in found] == [
        "packages",
        "packages for the embedded LM",
        "packages for Databricks",
        "packages for MCP servers",
        "packages for the recipe miprov2",
    ]


def test_a_package_that_is_missing_or_old_names_the_command_that_brings_it(monkeypatch: pytest.MonkeyPatch):
    needs = ["pandas>=9999", "there-is-no-such-package>=1", 'rich>=9999; extra == "local"']
    monkeypatch.setattr(here, "requires", lambda name: needs)
    base, local = here.packages(configured(lm={"model": "local/0.5B"}))
    assert base.severity is Severity.error
    assert ">=9999 is required; there-is-no-such-package isn't installed" in base.message
    assert local.fix == 'Run: pip install --upgrade "oneturn[local]"'


def test_an_extra_that_the_configuration_does_not_need_is_not_asked_for():
    assert len(list(here.packages(configured(lm={"model": "openai/some-lm"})))) == 1


@pytest.mark.parametrize(
    ("lm", "variable"),
    [
        ({"model": "openai/gpt"}, "OPENAI_API_KEY"),
        ({"model": "openai/gpt", "api_base": "http://127.0.0.1:1/v1"}, "OPENAI_API_KEY"),
        ({"model": "groq/llama"}, "GROQ_API_KEY"),
        ({"model": "deepseek/chat"}, "DEEPSEEK_API_KEY"),
        ({"model": "x/y", "api_key_env": "MY_KEY"}, "MY_KEY"),
    ],
)
def test_a_key_is_set_or_not_and_never_shown(lm: dict[str, Any], variable: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(variable, raising=False)
    (missing,) = here.lm(configured(lm=lm).lm)
    assert (missing.severity, missing.fix) == (Severity.error, f"Run: export {variable}=…")
    monkeypatch.setenv(variable, "sk-of-nobody")
    (there,) = here.lm(configured(lm=lm).lm)
    assert there.severity is Severity.ok
    assert "sk-of-nobody" not in repr(there)


def test_missing_weights_are_reported_with_their_size(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("ONETURN_CACHE", str(tmp_path))
    (found,) = here.lm(configured(lm={"model": "local/0.5B"}).lm)
    assert (found.severity, found.fix) == (Severity.warning, "They are downloaded on first use: 491 MB.")


def test_variables_of_servers_and_approvals_are_looked_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SHOP_TOKEN", raising=False)
    monkeypatch.setenv("APPROVALS_KEY", "0123456789abcdef" * 2)
    server = {"kind": "mcp", "url": "https://example.com/mcp", "headers": {"Authorization": "SHOP_TOKEN"}}
    found = here.variables(configured(tools=[server], approvals={"key_env": "APPROVALS_KEY"}))
    assert states(found) == {"approvals": "ok", "tools mcp": "error"}


def test_keys_of_the_server_the_embeddings_and_a_compile_are_looked_for(monkeypatch: pytest.MonkeyPatch):
    for name in ("DESK_KEY", "OPENAI_API_KEY", "TEACHER_KEY"):
        monkeypatch.delenv(name, raising=False)
    config = configured(
        serve={"api_key_env": "DESK_KEY"},
        retriever={"embeddings": "openai/text-embedding-3-small"},
        compile={"teacher": {"model": "openai/x", "api_key_env": "TEACHER_KEY"}},
    )
    assert states(here.variables(config)) == {"serve": "error", "retriever": "error", "compile": "warning"}
    for name in ("DESK_KEY", "OPENAI_API_KEY", "TEACHER_KEY"):
        monkeypatch.setenv(name, "set")
    assert states(here.variables(config)) == {"serve": "ok", "retriever": "ok"}


def test_a_port_that_is_taken_is_a_warning():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        (found,) = here.port(configured(serve={"port": listener.getsockname()[1]}))
    assert found.severity is Severity.warning


def test_a_program_that_cannot_be_built_is_a_problem(agent: Agent):
    def build() -> Any:
        raise FileNotFoundError("no corpus")

    (found,) = program_checks.program(replace(agent, build=build))
    assert (found.severity, found.message) == (Severity.error, "it can't be built: FileNotFoundError: no corpus")


def test_an_argument_of_a_tool_without_a_type_is_a_warning(agent: Agent):
    def rent(days, bicycle: str):  # type: ignore[no-untyped-def]
        """Rent a bicycle."""
        return "rented"

    untyped = replace(agent, build=lambda: oneturn.ReAct("question -> answer", tools=[rent]))
    (found,) = (each for each in program_checks.program(untyped) if each.check == "tool rent")
    assert (found.severity, found.message) == (Severity.warning, "days has no type")


def test_a_compiled_program_is_looked_at(agent: Agent):
    assert states(program_checks.program(agent)) == {"program": "ok", "tool calling": "ok", "compiled": "warning"}
    missing = replace(agent, config=configured(compiled="compiled.json"))
    assert states(program_checks.program(missing))["compiled"] == "error"


def test_a_program_that_was_compiled_on_the_embedded_lm_is_known_by_the_name_of_its_model(agent: Agent):
    for lm, severity in (("local/0.5B", "ok"), ("local/1.5B", "warning")):
        model = build_lm(LMConfig(model="local/0.5B")).model
        assert model.startswith("oneturn-local/")
        origin = {"seed": 0, "created": "", "versions": {}, "dataset": {}, "scores": {}, "spend": {}}
        manifest = Manifest(recipe="r", lm=model, interface=interface_of(agent.build()), **origin)
        save_compiled(agent.build(), manifest, agent.root / "compiled.json")
        configuration = configured(lm={"model": lm}, compiled="compiled.json")
        assert states(program_checks.program(replace(agent, config=configuration)))["compiled"] == severity


@pytest.mark.parametrize(
    ("declared", "message"),
    [("auto", "text with openai/some-lm"), ("native", "native with openai/some-lm, as declared")],
)
def test_the_way_of_tool_calling_is_shown(agent: Agent, declared: str, message: str):
    program = oneturn.ReAct("question -> answer", tools=[], tool_calling=declared)
    found = {finding.check: finding for finding in program_checks.program(replace(agent, build=lambda: program))}
    assert (found["tool calling"].severity, found["tool calling"].message) == (Severity.ok, message)


def test_a_program_that_was_compiled_for_another_way_is_a_warning(agent: Agent, caplog: pytest.LogCaptureFixture):
    manifest = Manifest(
        recipe="r",
        lm="openai/some-lm",
        seed=0,
        created="",
        versions={},
        dataset={},
        scores={},
        spend={},
        tool_calling="native",
        interface=interface_of(agent.build()),
    )
    save_compiled(agent.build(), manifest, agent.root / "compiled.json")
    compiled = {"lm": {"model": "openai/some-lm", "api_base": "http://127.0.0.1:9/v1"}, "compiled": "compiled.json"}
    loaded = replace(agent, config=configured(**compiled))
    messages = [finding.message for finding in program_checks.program(loaded) if finding.severity is Severity.warning]
    change = "it was compiled for tool calling by 'native', and openai/some-lm is asked by 'text'"
    assert messages == [f"compiled.json: {change}"]
    loaded.serving_program()
    assert f"compiled.json: {change}. Run `oneturn compile`." in caplog.text
    same = replace(loaded, build=lambda: oneturn.ReAct("question -> answer", tools=[], tool_calling="native"))
    caplog.clear()
    same.serving_program()
    assert caplog.text == ""
    assert states(program_checks.program(same)) == {"program": "ok", "tool calling": "ok", "compiled": "ok"}


def test_an_lm_that_answers_and_one_that_does_not(agent: Agent, monkeypatch: pytest.MonkeyPatch):
    (found,) = here.lm_answers(agent)
    assert (found.severity, "openai/some-lm doesn't" in found.message) == (Severity.error, True)
    monkeypatch.setattr(Agent, "lm", lambda self: ScriptedLM("OK"))
    (found,) = here.lm_answers(agent)
    assert found.severity is Severity.ok


def test_findings_are_passed_on_as_they_come(agent: Agent):
    findings: list[Finding] = []
    report = check(agent, seen=findings.append)
    assert findings == list(report.findings)
    assert report.passed()


@pytest.mark.parametrize("value", ["false", "False", "0"])
def test_models_that_mlflow_must_not_load_are_reported(value: str, agent: Agent, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MLFLOW_ALLOW_MODEL_CODE_EXECUTION", raising=False)
    assert not list(here.model_code())
    monkeypatch.setenv("MLFLOW_ALLOW_MODEL_CODE_EXECUTION", value)
    (found,) = [each for each in check(agent).findings if each.check == "mlflow"]
    assert (found.severity, found.fix) == (Severity.warning, "Run: unset MLFLOW_ALLOW_MODEL_CODE_EXECUTION")
    deployed = configured(deploy={"environment": {"MLFLOW_ALLOW_MODEL_CODE_EXECUTION": value}})
    assert states(here.deployable(deployed))["deploy.environment"] == "error"
    monkeypatch.setenv("MLFLOW_ALLOW_MODEL_CODE_EXECUTION", "true")
    assert not list(here.model_code())


def test_each_variable_that_a_run_reads_has_to_be_deployed():
    settings = {
        "retriever": {"embeddings": {"model": "openai/e", "api_key_env": "EMBED_KEY"}},
        "tools": [
            {"kind": "mcp", "command": "server", "env": ["SERVER_KEY"]},
            {"kind": "mcp", "url": "https://tools.example/mcp", "headers": {"Authorization": "HEADER"}},
        ],
    }
    found = states(here.deployable(configured(**settings)))
    named = ("retriever.embeddings.api_key_env", "tools.0.env", "tools.1.headers")
    assert [found.get(name) for name in named] == ["error"] * 3
    deployed = {"environment": {"EMBED_KEY": "1", "SERVER_KEY": "2", "HEADER": "3"}}
    assert not states(here.deployable(configured(**settings, deploy=deployed))).keys() & set(named)


def test_the_command_says_what_to_mend(tmp_path: Path):
    config = tmp_path / "config.yaml"
    config.write_text("lm: {model: openai/gpt, api_key_env: NO_SUCH_KEY}\ncompiled: data/compiled/support_desk.json\n")
    done = CliRunner().invoke(app, ["doctor", "--config", str(config)])
    assert done.exit_code == 1, done.output
    assert "✗ lm: NO_SUCH_KEY isn't set" in done.output
    assert "Run: export NO_SUCH_KEY=…" in done.output
    assert re.search(r"The agent can't run. \d+ ok, (\d+ warning, )?1 problem", done.output)
    done = CliRunner().invoke(app, ["doctor", "--config", str(config), "--json"])
    report = json.loads(done.output)
    assert report["passed"] is False
    assert {"subject": "lm", "state": "problem"}.items() <= report["findings"][2].items()
    assert {tuple(finding) for finding in report["findings"]} == {("subject", "state", "said", "fix")}


def test_an_unknown_recipe_is_reported_with_the_known_ones(agent: Agent):
    chosen = replace(agent, config=configured(compile={"recipe": "gepaa"}))
    (found,) = here.recipe(chosen.config, ("gepa", "simba"))
    assert (found.severity, found.check) == (Severity.error, "compile.recipe")
    assert (found.message, found.fix) == (
        "there is no recipe 'gepaa'",
        "Set compile.recipe to one of: gepa, simba.",
    )
    assert "compile.recipe" in states(check(chosen, recipes=["gepa"]).findings)
    assert not list(here.recipe(chosen.config, ()))
    assert states(here.recipe(AgentConfig(), ("own",))) == {"compile.recipe": "warning"}, "nobody has set it"
    assert not list(here.recipe(AgentConfig(), ("random_search",)))
