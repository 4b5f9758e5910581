"""The doctor connects to the databases that the configuration names, and shows no address."""

from __future__ import annotations

from pathlib import Path

import pytest

from oneturn.config import AgentConfig
from oneturn.core.findings import Severity
from oneturn.deployment.doctor import local
from tests.postgres import PostgresServer, postgres

__all__ = ["postgres"]

CONFIG = AgentConfig.read({"serve": {"store_env": "STORE"}, "approvals": {"ledger_env": "STORE"}})


def findings(monkeypatch: pytest.MonkeyPatch, address: str) -> dict[str, tuple[Severity, str]]:
    monkeypatch.setenv("STORE", address)
    return {each.check: (each.severity, str(each)) for each in local.variables(CONFIG)}


def test_databases_that_can_be_reached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, postgres: PostgresServer):
    for address in (f"sqlite:///{tmp_path / 'store.db'}", postgres.new_database()):
        found = findings(monkeypatch, address)
        assert {check: severity for check, (severity, _) in found.items()} == {
            "approvals.ledger_env": Severity.ok,
            "serve.store_env": Severity.ok,
        }


UNREACHABLE = {
    "no variable": "",
    "no address": "swordfish",
    "no driver": "oracle+swordfish://u:swordfish@host/db",
    "no folder": "sqlite:////no/swordfish/store.db",
    "memory": "sqlite:///:memory:",
    "no server": "postgresql://swordfish:swordfish@127.0.0.1:1/db",
}


@pytest.mark.parametrize("case", UNREACHABLE)
def test_databases_that_can_t(monkeypatch: pytest.MonkeyPatch, case: str):
    severity, text = findings(monkeypatch, UNREACHABLE[case])["serve.store_env"]
    assert severity == Severity.error
    assert "STORE" in text
    assert "swordfish" not in text


def test_a_wrong_password_isn_t_shown(monkeypatch: pytest.MonkeyPatch, postgres: PostgresServer):
    address = postgres.new_database().replace("first-password", "swordfish")
    severity, text = findings(monkeypatch, address)["serve.store_env"]
    assert severity == Severity.error
    assert "swordfish" not in text
