"""Servers with a response store, on SQLite and on Postgres."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from mlflow.pyfunc import ResponsesAgent
from starlette.testclient import TestClient

from oneturn.config import ServeConfig
from oneturn.serving import application
from tests.postgres import postgres

__all__ = ["postgres"]

Server = Callable[..., TestClient]


@pytest.fixture(params=["sqlite", "postgres"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.db'}"
    return str(request.getfixturevalue("postgres").new_database())


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, address: str) -> Iterator[Server]:
    """Start a replica of an agent; each has the same store, and perhaps an API key."""
    with ExitStack() as stack:

        def start(agent: ResponsesAgent, key: str | None = None, **settings: Any) -> TestClient:
            monkeypatch.setenv("STORE", settings.pop("address", address))
            monkeypatch.setenv("KEY", key or "")
            settings = {"store_env": "STORE", "api_key_env": key and "KEY", **settings}
            client = TestClient(application(agent, name="desk", settings=ServeConfig(**settings)))
            client.headers["Authorization"] = f"Bearer {key}"
            return stack.enter_context(client)

        yield start
