"""The agent of this repository's root, whichever it is: it can be served, its examples are sound, its code travels."""

from __future__ import annotations

from pathlib import Path

import pytest

import oneturn
from oneturn.datasets import check_data
from oneturn.deployment.completeness import missing_modules
from oneturn.programs import as_program

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def agent() -> oneturn.Agent:
    return oneturn.load_agent(ROOT / "agent.py")


def test_it_can_be_served_and_has_a_request_to_try_it_with(agent: oneturn.Agent):
    assert as_program(agent.program()).signature.output_fields
    assert agent.example_request()


def test_its_examples_are_sound(agent: oneturn.Agent):
    report = check_data(agent, progress=False)
    assert report.passed(), [finding.message for finding in report.findings]


def test_its_code_is_logged_with_it(agent: oneturn.Agent):
    assert missing_modules(agent) == []
