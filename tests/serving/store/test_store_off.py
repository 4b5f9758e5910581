"""Without a response store, and with one that a request doesn't use, a stream is the same to the byte."""

from __future__ import annotations

import re
from typing import Any

import pytest
from starlette.testclient import TestClient

from oneturn.serving import application
from tests.serving.store.agents import desk
from tests.serving.store.conftest import Server

REFUND = [{"role": "user", "content": "A refund, please."}]
_NEW_IN_EACH_RUN = re.compile(r'(?<=["_])[0-9a-f]{20,}|"\w+_at": ?[0-9.]+|mcpr_[0-9a-z_]+|[0-9]+\.[0-9]{2,}')


@pytest.mark.parametrize("path", ["/v1/responses", "/responses", "/invocations"])
def test_a_stream_without_a_store_has_no_trace_of_it(server: Server, path: str):
    off = stream(TestClient(application(desk(), name="desk")), path, {"input": REFUND, "stream": True})
    assert b"response.completed" in off
    unused = {"store": False} if path == "/v1/responses" else {}
    beside = stream(server(desk()), path, {"input": REFUND, "stream": True, **unused})
    assert beside == off


def stream(client: TestClient, path: str, body: dict[str, Any]) -> bytes:
    """The bytes of a stream, with ids, times and signatures numbered in the order in which they come."""
    sent = client.post(path, json=body)
    assert sent.status_code == 200, sent.text
    numbers: dict[str, str] = {}
    return _NEW_IN_EACH_RUN.sub(lambda found: numbers.setdefault(found[0], f"<{len(numbers)}>"), sent.text).encode()
