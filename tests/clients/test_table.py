"""The tables in the docs name the clients, the scenarios and the pinned versions."""

from __future__ import annotations

import json
import re

import pytest

from tests.clients.clients import CLIENTS
from tests.clients.environments import PINS
from tests.clients.scenarios import SCENARIOS
from tests.clients.table import DOCS


def pinned_version(environment: str, package: str) -> str:
    """The newest version that a client's pins name; older ones are for older versions of Python."""
    manifest = PINS / environment / "package.json"
    if manifest.is_file():
        return json.loads(manifest.read_text())["dependencies"][package]
    pins = (PINS / f"{environment}.txt").read_text()
    return re.findall(rf"^{re.escape(package)}==(\S+)", pins, re.MULTILINE)[-1]


@pytest.mark.parametrize("name", CLIENTS)
def test_the_docs_show_the_pinned_version(name: str):
    client = CLIENTS[name]
    version = pinned_version(client.environment, client.package)
    assert f"| {client.title} {version} |" in DOCS.read_text(encoding="utf-8"), "run: make test-clients WRITE=1"


def test_the_docs_show_every_scenario():
    header = " | ".join(["client", *(scenario.title for scenario in SCENARIOS.values())])
    assert f"| {header} |" in DOCS.read_text(encoding="utf-8"), "run: make test-clients WRITE=1"


def test_the_pins_name_no_registry():
    locks = [path.read_text() for path in PINS.rglob("*") if path.is_file()]
    assert len(locks) > len(CLIENTS) / 2
    assert not any('"resolved"' in lock or "index-url" in lock for lock in locks)
