"""Addresses are read with and without a scheme."""

from __future__ import annotations

import pytest

from oneturn.config import LMConfig
from oneturn.core.urls import is_url, with_scheme
from oneturn.evaluation.targets import EndpointTarget, resolve_target


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("http://host/path", "http://host/path"),
        ("HTTPS://host", "HTTPS://host"),
        ("localhost:8000", "http://localhost:8000"),
        ("localhost", "http://localhost"),
        ("localhost/v1/responses", "http://localhost/v1/responses"),
        ("127.0.0.1:8000/invocations", "http://127.0.0.1:8000/invocations"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("agent:8000", "http://agent:8000"),
        ("agent.example.com:443/x", "https://agent.example.com:443/x"),
        ("my.workspace.com/serving-endpoints/desk", "https://my.workspace.com/serving-endpoints/desk"),
        ("models:/desk/1", "models:/desk/1"),
        ("What is it?", "What is it?"),
        ("/api/2.0/mcp", "/api/2.0/mcp"),
        ("ftp://host", "ftp://host"),
    ],
)
def test_scheme_is_added_to_an_address(address: str, url: str):
    assert with_scheme(address) == url


@pytest.mark.parametrize("text", ["localhost:8000", "http://host", "127.0.0.1", "agent:8000/responses"])
def test_address_is_a_url(text: str):
    assert is_url(text)


@pytest.mark.parametrize(
    "text", ["models:/desk/1", "rows.jsonl", "Is it dishwasher-safe?", "agent.py", "at 10:30 am", "localhost is what?"]
)
def test_other_text_is_no_url(text: str):
    assert not is_url(text)


def test_configuration_and_evaluation_take_an_address_without_a_scheme():
    assert LMConfig(model="openai/x", api_base="localhost:11434/v1").api_base == "http://localhost:11434/v1"
    assert isinstance(resolve_target("localhost:8000", None, None, trace=False), EndpointTarget)
