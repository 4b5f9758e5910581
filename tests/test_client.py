"""What our client makes of an endpoint's answers, good and bad: a real HTTP server gives them, word for word."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

import oneturn
from oneturn.errors import EndpointError
from oneturn.replies import Source, ToolUse

MESSAGE = {
    "type": "message",
    "id": "msg_1",
    "role": "assistant",
    "status": "completed",
    "content": [
        {
            "type": "output_text",
            "text": "Four.",
            "annotations": [
                {"type": "url_citation", "title": "Sums", "url": "sums.md", "start_index": 0, "end_index": 5}
            ],
        }
    ],
}
ITEMS = [
    {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "add", "arguments": '{"a": 2}'},
    {"type": "function_call_output", "call_id": "c1", "output": "4"},
    MESSAGE,
]
DELTA = {"type": "response.output_text.delta", "item_id": "msg_1", "delta": "Four."}
COMPLETED = {
    "type": "response.completed",
    "response": {
        "id": "resp_1",
        "output": ITEMS,
        "usage": {"input_tokens": 3, "output_tokens": 1, "total_tokens": 4},
        "custom_outputs": {"sure": True},
    },
}
GOOD = [DELTA, COMPLETED]


class Endpoint:
    """What the server was asked, and what it answers."""

    def __init__(self, answer: str, status: int, kind: str):
        self.answer = answer.encode()
        self.status = status
        self.kind = kind
        self.path = ""
        self.headers: dict[str, str] = {}
        self.body: dict[str, Any] = {}
        self.requests = 0
        self.url = ""


@contextmanager
def answering(answer: str, status: int = 200, kind: str = "text/event-stream") -> Iterator[Endpoint]:
    endpoint = Endpoint(answer, status, kind)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            endpoint.requests += 1
            endpoint.path, endpoint.headers = self.path, dict(self.headers)
            endpoint.body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(endpoint.status)
            self.send_header("content-type", endpoint.kind)
            self.end_headers()
            self.wfile.write(endpoint.answer)

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        endpoint.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield endpoint
        finally:
            server.shutdown()
            thread.join()


def streaming(*events: dict[str, Any]) -> AbstractContextManager[Endpoint]:
    return answering("".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n")


def refusing(status: int, body: dict[str, Any]) -> AbstractContextManager[Endpoint]:
    return answering(json.dumps(body), status, "application/json")


def test_a_reply_holds_all_that_came():
    with streaming(*GOOD) as endpoint:
        reply = oneturn.query(endpoint.url, "2 + 2?")
    assert reply.text == "Four."
    assert reply.tool_calls == (ToolUse("add", '{"a": 2}', "4"),)
    assert reply.sources == (Source("Sums", "sums.md"),)
    assert reply.custom_outputs == {"sure": True}
    assert reply.usage["total_tokens"] == 4
    assert reply.response_id == "resp_1"


def test_the_question_and_the_custom_inputs_are_sent():
    with streaming(*GOOD) as endpoint:
        oneturn.query(endpoint.url, "2 + 2?", custom_inputs={"tone": "dry"}, api_key="key-1")
    assert endpoint.body["input"] == [{"role": "user", "content": "2 + 2?"}]
    assert endpoint.body["custom_inputs"] == {"tone": "dry"}
    assert endpoint.body["stream"] is True
    assert endpoint.headers["Authorization"] == "Bearer key-1"


def test_events_are_told_as_they_come():
    told: list[str] = []
    with streaming(*GOOD) as endpoint:
        oneturn.query(endpoint.url, "?", on_event=lambda event: told.append(event["type"]))
    assert told == ["response.output_text.delta", "response.completed"]


def test_an_attempt_that_was_started_over_is_not_part_of_the_answer():
    begun = {**MESSAGE, "status": "incomplete", "content": [{"type": "output_text", "text": "Fi", "annotations": []}]}
    with streaming({**COMPLETED, "response": {"id": "r", "output": [begun, MESSAGE]}}) as endpoint:
        assert oneturn.query(endpoint.url, "?").text == "Four."


@pytest.mark.parametrize("ending", ["", "/", "/responses", "/invocations"])
def test_any_form_of_the_address_will_do(ending: str):
    with streaming(*GOOD) as endpoint:
        oneturn.query(endpoint.url + ending, "?")
    assert endpoint.path == "/responses"


@pytest.mark.parametrize("ending", ["", "/invocations"])
def test_a_databricks_endpoint_is_named_by_the_model(ending: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DATABRICKS_TOKEN", "a-token")
    with streaming(*GOOD) as endpoint:
        oneturn.query(f"{endpoint.url}/serving-endpoints/desk{ending}", "?")
    assert endpoint.path == "/serving-endpoints/responses"
    assert endpoint.body["model"] == "desk"
    assert endpoint.headers["Authorization"] == "Bearer a-token"


def test_a_databricks_endpoint_wants_a_token(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("DATABRICKS_TOKEN", raising=False)
    with pytest.raises(EndpointError, match="DATABRICKS_TOKEN isn't set"):
        oneturn.query("https://workspace.invalid/serving-endpoints/desk", "?")


_ENDED_EARLY = (
    "The stream ended before the answer was complete: the server, or a proxy before it, closed the connection. "
    "Ask again, and look at the server's log."
)

Case = tuple[Callable[[], AbstractContextManager[Endpoint]], str, str, "int | None"]

FAILURES: dict[str, Case] = {
    "our server refuses": (
        lambda: refusing(400, {"error": {"message": "No question.", "type": "x", "code": "invalid_request"}}),
        "No question.",
        "invalid_request",
        400,
    ),
    "another MLflow server fails": (lambda: refusing(500, {"detail": "broken"}), "broken", "http_500", 500),
    "Databricks refuses": (
        lambda: refusing(403, {"error_code": "PERMISSION_DENIED", "message": "No access."}),
        "No access. Check the api_key.",
        "PERMISSION_DENIED",
        403,
    ),
    "busy": (
        lambda: refusing(429, {"error_code": "REQUEST_LIMIT_EXCEEDED", "message": "Too many."}),
        "Too many. The endpoint is busy or starting: wait, then ask again.",
        "REQUEST_LIMIT_EXCEEDED",
        429,
    ),
    "no JSON": (lambda: answering("<h1>oh</h1>", 502, "text/html"), "HTTP 502 Bad Gateway", "http_502", 502),
    "an error event": (
        lambda: streaming(DELTA, {"type": "error", "code": "lm_error", "message": "The LM is away."}),
        "The LM is away.",
        "lm_error",
        None,
    ),
    "an error object, as MLflow sends it": (lambda: streaming(DELTA, {"error": "oh"}), "oh", "server_error", None),
    "an error in databricks_output": (
        lambda: streaming({"type": "x", "databricks_output": {"error": {"error_code": "TIMEOUT", "message": "Late."}}}),
        "Late.",
        "TIMEOUT",
        None,
    ),
    "response.failed": (
        lambda: streaming({"type": "response.failed", "response": {"error": {"code": "c", "message": "m"}}}),
        "m",
        "c",
        None,
    ),
    "response.incomplete": (
        lambda: streaming({"type": "response.incomplete", "response": {"incomplete_details": {"reason": "limit"}}}),
        "limit",
        "limit",
        None,
    ),
    "no terminal event": (
        lambda: streaming(DELTA),
        _ENDED_EARLY,
        "stream_ended",
        None,
    ),
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_failure_is_an_endpoint_error_that_says_what_happened(case: str):
    endpoint_of, message, code, status = FAILURES[case]
    with endpoint_of() as endpoint, pytest.raises(EndpointError) as caught:
        oneturn.query(endpoint.url, "?")
    assert str(caught.value) == message
    assert (caught.value.code, caught.value.status) == (code, status)
    assert endpoint.requests == 1, "a run must not be started twice"


def test_what_is_no_event_is_told():
    with answering("data: {nonsense\n\n") as endpoint, pytest.raises(EndpointError) as caught:
        oneturn.query(endpoint.url, "?")
    assert str(caught.value) == f"{endpoint.url} sent something that is no Responses event."


def test_an_unreachable_host_is_told():
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(EndpointError) as caught:
        oneturn.query(url, "?")
    assert str(caught.value) == f"Can't reach {url}. Is it served there? Start it with: oneturn serve"


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "agent", "ftp://host/", ""])
def test_what_is_no_address_is_told(url: str):
    with pytest.raises(EndpointError, match=r"is no URL of an endpoint; give one such as http://127.0.0.1:8000."):
        oneturn.query(url, "?")
