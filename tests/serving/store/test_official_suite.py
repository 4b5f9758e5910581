"""The acceptance suite's tests of ``previous_response_id`` (openresponses.org), written again as tests of our own.

The suite has them for its WebSocket transport: ``websocket-continuation``, ``websocket-sequential-responses``,
``websocket-reconnect-store-false-recovery`` and ``websocket-previous-response-not-found``. Here they go over HTTP.
"""

from __future__ import annotations

import pytest

from tests.serving.store.agents import ask, desk, text
from tests.serving.store.conftest import Server

SEED = [{"type": "message", "role": "user", "content": "Remember the code word: code-ember. Reply with OK."}]
NEXT = [{"type": "message", "role": "user", "content": "What is the code word?"}]


@pytest.mark.parametrize("stream", [False, True])
def test_continuation_and_sequential_responses(server: Server, stream: bool):
    client = server(desk())
    seed = ask(client, SEED, stream)
    following = ask(client, NEXT, stream, previous_response_id=seed["id"])
    assert following["status"] == "completed"
    assert following["id"] != seed["id"]
    assert following["previous_response_id"] == seed["id"]
    assert "code-ember" in text(following)
    assert "code-ember" not in text(ask(client, NEXT, stream))


@pytest.mark.parametrize("stream", [False, True])
def test_recovery_after_store_false(server: Server, stream: bool):
    client = server(desk())
    seed = ask(client, SEED, stream, store=False)
    body = {"input": NEXT, "previous_response_id": seed["id"], "store": False, "stream": stream}
    lost = client.post("/v1/responses", json=body)
    assert (lost.status_code, lost.json()["error"]["code"]) == (404, "previous_response_not_found")
    recovered = ask(client, [*SEED, *seed["output"], *NEXT], stream, store=False)
    assert "code-ember" in text(recovered)


@pytest.mark.parametrize("stream", [False, True])
def test_a_missing_previous_response(server: Server, stream: bool):
    body = {"input": "This should fail.", "previous_response_id": "resp_openresponses_missing", "stream": stream}
    sent = server(desk()).post("/v1/responses", json=body)
    error = sent.json()["error"]
    assert sent.status_code == 404
    assert (error["type"], error["code"]) == ("not_found", "previous_response_not_found")
    assert error["param"] == "previous_response_id"
