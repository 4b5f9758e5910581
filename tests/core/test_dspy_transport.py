"""What the interruption of an LM's calls relies on in DSPy's HTTP transport; see ``test_dspy_contract.py``."""

from __future__ import annotations

import socket
from typing import Any

import dspy
import pytest
from dspy.lm15 import OpenAIChatLM

from tests.core.test_dspy_contract import REQUEST, private, relies_on
from tests.lm.hanging_server import hanging_server

__all__ = ["private"]  # a fixture


@relies_on("a transport shows the socket of each request", "the interruption of an LM's calls (lm/transport.py)")
def test_requests_are_observed(private: Any):
    class Observer(private.RequestObserver):
        def attach(self, connection: socket.socket) -> None:
            seen.append(connection.getpeername()[1])

        def detach(self) -> None:
            seen.append("detached")

        def check(self, error: Exception | None) -> None:
            seen.append(error)

    class Transport(private.ObservedTransport):
        def observer(self) -> Any:
            return Observer()

    seen: list[Any] = []
    with hanging_server("never") as server, Transport() as transport:
        client = OpenAIChatLM(api_key="k", base_url=f"http://127.0.0.1:{server.port}/v1", transport=transport)
        client.complete(REQUEST)
        assert seen == [server.port, None, "detached"]
        list(client.stream(REQUEST))
        assert seen == [server.port, None, "detached"] * 2
        assert transport.pool_stats()["in_use"] == 0


@relies_on("an LM takes its transport and its sleep from the modules", "the interruption of an LM's calls")
def test_the_transport_and_the_sleep_are_those_of_all_lms(private: Any, monkeypatch: pytest.MonkeyPatch):
    class Transport(private.ObservedTransport):
        def observer(self) -> Any:
            used.append("transport")
            return private.RequestObserver()

    used: list[Any] = []
    monkeypatch.setattr(private.transports, "StdlibTransport", private.transports.StdlibTransport)
    monkeypatch.setattr(private.execution, "time", private.execution.time)
    private.use_for_all_lms(Transport, lambda seconds: used.append(seconds))
    with hanging_server("for a retry") as server, pytest.raises(dspy.LMRateLimitError):
        server.lm(num_retries=1)("Hello")
    assert used == ["transport", 3600.0, "transport"]
