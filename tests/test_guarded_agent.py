"""An agent with a tool that needs a person's approval: where its signing key is needed, and where it isn't."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import mlflow
import pytest
from rich.console import Console

import oneturn
from oneturn.agent import Agent
from oneturn.config import AgentConfig
from oneturn.deployment.databricks.apps import plan_app
from oneturn.deployment.databricks.bundle import write_bundle
from oneturn.deployment.databricks.model_serving import plan_serving
from oneturn.deployment.doctor import Severity
from oneturn.deployment.doctor import local as doctor
from oneturn.deployment.doctor import program as program_checks
from oneturn.errors import ConfigError
from oneturn.serving.server import open_approvals, serve
from oneturn.serving.terminal import ask
from oneturn.testing import ScriptedLM, call, finish

KEY = "0123456789abcdef" * 2
NAMED = {"approvals": {"key_env": "DESK_KEY"}}


def refund(euros: float) -> str:
    """Give money back."""
    return "refunded"


@dataclasses.dataclass(frozen=True)
class Desk(Agent):
    """An agent whose LM calls the guarded tool."""

    def lm(self) -> Any:
        return ScriptedLM(call("refund", euros=3), finish(answer="Done."))


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DESK_KEY", raising=False)


def agent(root: Path, **sections: Any) -> Agent:
    return Desk(
        name="desk",
        config=AgentConfig.read({"lm": {"model": "openai/x"}, **sections}),
        build=lambda: oneturn.ReAct("question -> answer", tools=[oneturn.tool(refund, approval=True)]),
        metric=lambda gold, pred, trace=None: 1.0,
        examples=lambda split: [],
        recipes={},
        root=root,
        code_paths=(),
        example_questions=("Refund?",),
    )


# ---- serve and ask


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "desk.example"])
def test_a_server_that_others_reach_names_the_variable_at_once(host: str, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"DESK_KEY \(approvals.key_env\) isn't set"):
        open_approvals(agent(tmp_path, **NAMED).adapter(), host)
    with pytest.raises(
        ConfigError, match=r"refund may need a person's approval, and approvals.key_env isn't set\. Set"
    ):
        open_approvals(agent(tmp_path).adapter(), host)


def test_serve_checks_before_it_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    served = agent(tmp_path, **NAMED, mlflow={"tracking_uri": f"sqlite:///{tmp_path}/m.db"})
    with pytest.raises(ConfigError, match="DESK_KEY"):
        serve(served, host="0.0.0.0", port=0)


@pytest.mark.parametrize("sections", [NAMED, {}], ids=["named", "not configured"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.2"])
def test_a_local_server_makes_a_key_for_its_process_and_says_so(
    host: str, sections: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    adapters = [agent(tmp_path, **sections).adapter() for _ in range(2)]
    for adapter in adapters:
        open_approvals(adapter, host)
    said = capsys.readouterr().err
    assert "a key for this process signs approvals until the server stops" in said
    assert ("DESK_KEY" in said) is bool(sections)
    with oneturn.running_server(adapters[0]) as url:
        reply = oneturn.query(url, "Refund?")
        assert oneturn.query(url, reply.answering(approve=True)).text == "Done."
    with oneturn.running_server(adapters[1]) as url, pytest.raises(oneturn.EndpointError, match="doesn't match"):
        oneturn.query(url, reply.answering(approve=True))


def test_a_server_uses_the_key_that_is_set_and_refuses_a_weak_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("DESK_KEY", KEY)
    open_approvals(agent(tmp_path, **NAMED).adapter(), "0.0.0.0")
    monkeypatch.setenv("DESK_KEY", "k" * 40)
    with pytest.raises(ConfigError, match="1 of them different"):
        open_approvals(agent(tmp_path, **NAMED).adapter(), "127.0.0.1")
    assert capsys.readouterr().err == ""


def test_ask_names_the_variable_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tracking = {"tracking_uri": f"sqlite:///{tmp_path}/m.db"}
    with pytest.raises(ConfigError, match=r"DESK_KEY \(approvals.key_env\) isn't set"):
        ask(agent(tmp_path, **NAMED, mlflow=tracking), "Refund?", console=Console(file=io.StringIO()))
    monkeypatch.setenv("DESK_KEY", KEY)
    for sections in (NAMED, {}):
        desk = agent(tmp_path, **sections, mlflow=tracking)
        reply = ask(desk, "Refund?", approve=lambda request: True, console=Console(file=io.StringIO()))
        assert reply.text == "Done."


# ---- without the key's value


def test_the_adapter_is_built_without_the_key_s_value(tmp_path: Path):
    """So are all that import the model file: data, diff, log_model, compile, doctor."""
    adapter = agent(tmp_path, **NAMED).adapter()
    adapter.load_context(None)
    assert adapter.approvals is not None
    assert adapter.approvals.missing_key_env == "DESK_KEY"


MODEL_FILE = """
import mlflow
import oneturn
from oneturn.testing import ScriptedLM, finish

def refund(euros: float) -> str:
    \"\"\"Give money back.\"\"\"
    return "refunded"

class Desk(oneturn.Agent):
    def lm(self):
        return ScriptedLM(*[finish(answer="Hello.")] * 9)

AGENT = Desk(
    name="desk",
    config=oneturn.AgentConfig.read("config.yaml"),
    build=lambda: oneturn.ReAct("question -> answer", tools=[oneturn.tool(refund, approval=True)]),
    metric=lambda gold, pred, trace=None: 1.0,
    examples=lambda split: [],
    recipes={},
    root=__import__("pathlib").Path(__file__).parent,
    code_paths=(),
    example_questions=("Hello?",),
)
mlflow.models.set_model(AGENT.adapter())
"""


def test_a_model_is_logged_with_the_key_s_name_and_without_its_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    tracking = f"mlflow: {{tracking_uri: 'sqlite:///{tmp_path}/m.db', experiment: desk}}\nlm: {{model: openai/x}}\n"
    (tmp_path / "agent.py").write_text(MODEL_FILE)
    (tmp_path / "config.yaml").write_text(tracking)
    with pytest.raises(ConfigError, match=r"refund may need a person's approval, and no key is configured to sign it"):
        oneturn.log_model(oneturn.load_agent("agent.py"))
    (tmp_path / "config.yaml").write_text(f"{tracking}approvals: {{key_env: DESK_KEY}}\n")
    logged = oneturn.log_model(oneturn.load_agent("agent.py"))
    assert mlflow.models.get_model_info(logged.model_uri).flavors


# ---- deploy and doctor


@pytest.mark.parametrize("deploy", [plan_serving, plan_app, lambda desk, **_: write_bundle({"dev": desk}, Path("x"))])
def test_an_agent_without_a_configured_key_is_not_deployed(deploy: Any, tmp_path: Path):
    on_databricks = {"mlflow": {"tracking_uri": "databricks", "model_name": "main.agents.desk"}}
    with pytest.raises(ConfigError, match=r"refund may need a person's approval.*Set approvals.key_env"):
        deploy(agent(tmp_path, **on_databricks), check=False)


def test_doctor_reports_a_guarded_tool_without_a_key(tmp_path: Path):
    (found,) = (each for each in program_checks.program(agent(tmp_path)) if each.check == "approvals")
    assert found.severity is Severity.error
    assert "refund may need a person's approval" in found.message
    assert not [each for each in program_checks.program(agent(tmp_path, **NAMED)) if each.check == "approvals"]


def test_doctor_reports_keys_and_ledgers_that_are_missing_or_weak(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    config = AgentConfig.read({"approvals": {"key_env": "DESK_KEY", "ledger_env": "DESK_LEDGER"}})
    assert [each.severity for each in doctor.variables(config)] == [Severity.error, Severity.error]
    monkeypatch.setenv("DESK_LEDGER", f"sqlite:///{tmp_path / 'ledger.db'}")
    monkeypatch.setenv("DESK_KEY", "k" * 32)
    weak, ledger = doctor.variables(config)
    assert (weak.severity, ledger.severity) == (Severity.error, Severity.ok)
    assert "1 of them different" in weak.message
    monkeypatch.setenv("DESK_KEY", KEY)
    assert [each.severity for each in doctor.variables(config)] == [Severity.ok, Severity.ok]


def test_a_deployment_needs_the_ledger_s_variable_too():
    config = AgentConfig.read({"approvals": {"key_env": "DESK_KEY", "ledger_env": "DESK_LEDGER"}})
    assert {"approvals.key_env", "approvals.ledger_env"} <= {each.check for each in doctor.deployable(config)}
